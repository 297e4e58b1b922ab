"""The worker side of pgclip.

In the order of the story: `main` puts the parts together; a ticket wakes `consumer`; `leases`
claims, `fetch` brings the contents, `decoders` runs `decode` in child processes; `encode` has
`clip` make the vectors, `labels` the labels, and `store` writes; `pipeline` overlaps these.
`presence` keeps the worker alive in the database, `steward` cleans up after others, `queries`
answers searches.
"""
