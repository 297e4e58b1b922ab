"""The one error of the embedded services."""

from pgclip.errors import PgclipError


class LocalServicesError(PgclipError):
    """An embedded service cannot be started, reached or stopped; the message says what to do."""
