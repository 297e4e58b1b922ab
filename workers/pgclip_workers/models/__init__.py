"""From pixels and words to vectors: weights, and the device that they are on.

Knows nothing of queues and of Postgres.
"""
