"""The worker side of pgclip.

In the order of the story: `main` starts the `worker`, which puts the parts together; a ticket wakes
the `consumer`, and the `pipeline` takes a batch on its path. Its rooms, each of which imports only
from those above it:

- `pictures`: from bytes, a file or a URL to pixels, in child processes
- `models`: from pixels and words to vectors
- `labelling`: from vectors to labels
- `upkeep`: the heartbeat, others' leases, segments, a process that is stuck
- `pipeline`: claim, fetch, encode and store, in batches that overlap
- `telemetry`: logs and metrics

`queries` answers searches, beside all that. `statements`, `machine` and `termination` are for all.
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
