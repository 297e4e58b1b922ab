"""The worker side of pgclip.

In the order of the story: `main` puts the parts together; `tickets` wakes, `leases` claims and
fetches, `decoders` runs `decode` in child processes, `encoder` makes the vectors, `labels` the
labels, `store` writes; `pipeline` overlaps these. `presence` keeps the worker alive in the
database, `steward` cleans up after others, `queries` answers searches.
"""
