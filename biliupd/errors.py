"""The exceptions biliupd raises on purpose; anything else is a bug.

Whoever raises says whether another try can help. Only the pipeline decides what follows from that.
"""


class BiliupdError(Exception):
    """Base of the family. `hint` tells the operator what to do about it, `code` is what Bilibili called it."""

    code: int | None = None

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(BiliupdError):
    """The configuration cannot be used. `problems` holds every one found, each with its path and line."""

    def __init__(self, problems: list[str], *, hint: str = "") -> None:
        super().__init__("\n".join(problems), hint=hint)
        self.problems = problems


class TemporaryError(BiliupdError):
    """Worth another try, not earlier than after `retry_after_seconds` (0: the caller's own back-off)."""

    def __init__(self, message: str, *, hint: str = "", retry_after_seconds: float = 0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class Unreachable(TemporaryError):
    """The other side was not reached at all: the network is down, a name is not found. It is no failed try."""


class PermanentError(BiliupdError):
    """Another try cannot help: hold the thing for a person."""


class UnknownOutcome(BiliupdError):
    """A submission was sent and may exist. Look it up, never send it again blindly.

    `refused`: this very request was refused, but in a way that an earlier one may have caused.
    """

    def __init__(self, message: str, *, hint: str = "", refused: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.refused = refused


class NeedsPerson(TemporaryError):
    """Waits for a person: an account is logged out, ffmpeg is missing. Nothing counts as a failed try."""


class Cooling(NeedsPerson):
    """A site wants an account to keep quiet: everything that uses it waits, longer each time it happens again."""


class Stopped(BiliupdError):
    """The daemon is being stopped, so the work was put down unfinished."""
