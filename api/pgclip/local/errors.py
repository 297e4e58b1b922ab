"""The one error of the embedded services."""


class LocalServicesError(RuntimeError):
    """An embedded service cannot be started, reached or stopped; the message says what to do."""
