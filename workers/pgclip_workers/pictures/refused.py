"""The answer "no": an input that can't be used, with the reason that its item fails for."""


class Refused(Exception):
    """`reason` is a short code, `message` is for a person."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message
