"""What keeps a worker alive, and the queue, the segments and the others' leases in order."""
