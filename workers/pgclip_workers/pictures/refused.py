"""The answer "no": an input that can't be used, with the reason that its item fails for."""


class Refused(Exception):
    """`reason` is a short code, `message` is for a person.

    `retry_after`: it may pass by itself; in so many seconds, if a site says so, else 0. None: it is
    for good.
    """

    def __init__(self, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(reason, message, retry_after)
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
