"""What a worker tells about its work: logs and metrics."""
