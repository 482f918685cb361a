"""Tell a clock that was set from media that is missing.

Pure. Runs in the recorder process. A live stream's times cannot run ahead of real time. A step forward that stays
behind the newest time there could be was media that the server did not deliver; one beyond it is a clock that was set.
"""

LEAST_LOSS_SECONDS = 0.5


class LiveEdge:
    """The furthest that the stream's clock has been ahead of ours."""

    def __init__(self) -> None:
        self._ahead: float | None = None

    def forget(self) -> None:
        """Another connection: it may send in advance what it likes."""
        self._ahead = None

    def note(self, timestamp: int, now: float) -> None:
        """A tag of this time (ms) came at `now` (monotonic seconds)."""
        ahead = timestamp / 1000 - now
        if self._ahead is None or ahead > self._ahead:
            self._ahead = ahead

    def behind(self, timestamp: int, now: float) -> float:
        """Seconds by which a tag of this time is later than the stream was at its earliest."""
        return max(0.0, (self._ahead or 0.0) + now - timestamp / 1000) if self._ahead is not None else 0.0

    def lost(self, since: int, step: int, now: float) -> float:
        """Seconds of media missing when the clock stepped by `step` from `since` (both ms)."""
        if self._ahead is None:
            return 0.0
        possible = self._ahead + now - since / 1000
        lost = min(step / 1000, possible)
        if lost < LEAST_LOSS_SECONDS:
            self._ahead += step / 1000
            return 0.0
        if step / 1000 - lost > LEAST_LOSS_SECONDS:
            self._ahead += step / 1000 - lost
        return lost
