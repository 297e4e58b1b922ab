"""The worker side of pgclip.

In the order of the story: `main` puts the parts together; a ticket wakes `consumer`; `leases`
claims, `fetch` brings the contents, `decoders` runs `decode` in child processes, through an
`arena`; `encode` has `clip` make the vectors of a `checkpoint`, `labels` the labels, and `store`
writes; `pipeline` overlaps these.
`presence` keeps the worker alive in the database, `steward` cleans up after others, `queries`
answers searches. `logs` says what happened, and an `observer` counts it: `metrics`, if asked for.
"""

import os

from pgclip_workers.machine import processors

# Read by numpy and torch when they are imported, so set before any module of ours does that.
# Threads of a parallel region that spin while they wait starve decoders and Postgres on the same
# processors: the encoder is eight times slower beside one busy process.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# torch takes all processors that it sees, which in a container may be many more than it gets.
if processors() < (os.cpu_count() or 1):
    os.environ.setdefault("OMP_NUM_THREADS", str(processors()))
# numpy's own threads cost more than they bring for a batch's labels: 5 ms instead of 0.3.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
