"""How an account stands with Bilibili: whether it keeps quiet, and when it may submit again.

The standing lies in a small file beside the account's cookies.json, so that everything that uses the login, the daemon
and the commands alike, keeps quiet together, over restarts too. Codes and times: bilibili-upload.md, 4.6 and 6.
"""

import contextlib
import fcntl
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from loguru import logger

from biliupd.config import PublishConfig
from biliupd.errors import Cooling, TemporaryError
from biliupd.publish import private_file

LONGEST_SECONDS = 24 * 3600.0
_changing = threading.Lock()
FORGIVEN_SECONDS = 7 * 24 * 3600.0  #: without a further warning for so long, the next one counts as the first
HOUR, DAY = 3600.0, 86400.0


@dataclass(frozen=True)
class Standing:
    """Quiet until `until` (Unix seconds) because of `reason`; `strikes` warnings so far, the last at `warned`;
    `submits`: when it submitted in the last 24 hours."""

    until: float = 0.0
    reason: str = ""
    hint: str = ""
    strikes: int = 0
    warned: float = 0.0
    submits: tuple[float, ...] = ()

    def warned_by(self, error: Cooling, now: float) -> "Standing":
        """After a risk code: quiet for as long as the code wants, twice as long with each further one, up to a day."""
        if self.quiet_seconds(now) > 0:  # several requests were under way when it came: one warning
            return self
        strikes = 1 if now - self.warned > FORGIVEN_SECONDS else self.strikes + 1
        base = max(error.retry_after_seconds, 300.0)
        seconds = max(min(base * 2.0 ** (strikes - 1), LONGEST_SECONDS), base) * random.uniform(1.0, 1.1)
        return replace(self, until=now + seconds, reason=str(error), hint=error.hint, strikes=strikes, warned=now)

    def submitted(self, now: float) -> "Standing":
        """After a submission or an edit was sent."""
        return replace(self, submits=(*(at for at in self.submits if now - DAY < at <= now), now))

    def accepted(self, now: float) -> "Standing":
        """After a submission was accepted: earlier warnings are forgiven, one that came meanwhile is not."""
        return self if self.quiet_seconds(now) > 0 else replace(self, strikes=0, until=0.0, reason="", hint="")

    def quiet_seconds(self, now: float) -> float:
        """How long it has to keep quiet altogether; 0: it need not. Longer than ever is of a clock that was ahead."""
        left = self.until - now
        return left if 0 < left <= 1.1 * LONGEST_SECONDS else 0.0

    def pause_seconds(self, publish: PublishConfig, now: float) -> float:
        """How long until the next submission is polite; 0: now."""
        recent = sorted(at for at in self.submits if now - DAY < at <= now)
        waits = [self.quiet_seconds(now)]
        if recent:
            waits.append(recent[-1] + publish.submit_interval_seconds - now)
        for count, span in ((publish.submits_per_hour, HOUR), (publish.submits_per_day, DAY)):
            if len(recent) >= count:
                waits.append(recent[-count] + span - now)
        return max(waits)


class StandingFile:
    """The standing of the account whose cookies lie at `cookies`. Raises nothing but what its methods say."""

    def __init__(self, cookies: Path) -> None:
        self.path = cookies.with_name(f"{cookies.name}.standing")
        self._memory = Standing()  #: when the folder cannot be written

    def read(self) -> Standing:
        """As it is now; a file that cannot be understood counts as none."""
        try:
            found = Standing(**json.loads(self.path.read_bytes()))
            return Standing(float(found.until), str(found.reason), str(found.hint), min(int(found.strikes), 30),
                            float(found.warned), tuple(float(at) for at in found.submits))
        except FileNotFoundError:
            return self._memory
        except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
            logger.warning("{} cannot be used: {}", self.path, type(error).__name__)
            return self._memory

    def refuse_while_quiet(self) -> None:
        """Raise TemporaryError, with the seconds that are left, while the account has to keep quiet."""
        standing = self.read()
        if (seconds := standing.quiet_seconds(time.time())) > 0:
            raise TemporaryError(f"this account keeps quiet for another {spoken(seconds)}: {standing.reason}",
                                 hint=standing.hint, retry_after_seconds=seconds)

    def write(self, standing: Standing) -> None:
        """Keep it, in one piece and private; where the folder cannot be written, only as long as this process runs."""
        self._memory = standing
        try:
            private_file.replace(self.path, json.dumps(asdict(standing)).encode())
        except OSError as error:
            logger.warning("{} cannot be written ({}): other programs do not see how the account stands", self.path,
                           error.strerror)

    @contextlib.contextmanager
    def warned(self) -> Iterator[None]:
        """A risk code that leaves the block is written down."""
        try:
            yield
        except Cooling as error:
            self._change(partial(Standing.warned_by, error=error, now=time.time()))
            raise

    def calm(self) -> None:
        """A person did what was asked for: the account need not keep quiet any longer. The next warning still counts
        as a further one."""
        self._change(lambda standing: replace(standing, until=0.0, reason="", hint=""))

    @contextlib.contextmanager
    def submitting(self, publish: PublishConfig) -> Iterator[None]:
        """One submission or edit of this account at a time, whichever program sends it, and not too often.

        Counts as one from the start, whatever becomes of it: failed attempts count with Bilibili, too. Raises
        TemporaryError with the seconds to wait when it may not begin now.
        """
        with self._alone():
            now = time.time()
            standing = self.read()
            if (pause := standing.pause_seconds(publish, now)) > 0:
                raise TemporaryError(standing.reason or "the pause between two submissions", retry_after_seconds=pause)
            self._change(partial(Standing.submitted, now=now))
            yield
            self._change(partial(Standing.accepted, now=time.time()))

    def _change(self, change: Callable[[Standing], Standing]) -> None:
        with _changing:  # between processes, at worst a warning is lost, and the next request brings it again
            self.write(change(self.read()))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the account's lock. A file system without locks, a folder that cannot be written, let everyone in."""
        try:
            held = os.open(self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            private_file.give(held, self.path)
        except OSError:
            yield
            return
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TemporaryError("another submission of this account is under way", retry_after_seconds=5) from None
            except OSError:
                pass
            yield
        finally:
            os.close(held)


def spoken(seconds: float) -> str:
    """A duration in words that fit: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
