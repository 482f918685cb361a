"""A wall clock that is wrong, for a process of the tests: with this folder in PYTHONPATH, Python reads it at its start.

How many seconds it is ahead stands in the file that CLOCK names, and is read at each look. The monotonic clock and the
times of files stay right, as they do when a machine's clock is set. (libfaketime tells the right time now and then to a
process of several threads.)
"""

import datetime
import os
import time
from pathlib import Path

_OFFSET = Path(os.environ["CLOCK"])
_right, _datetime = time.time, datetime.datetime


def _time() -> float:
    return _right() + float(_OFFSET.read_text())


class _Kind(type):
    def __instancecheck__(cls, one: object) -> bool:
        return isinstance(one, _datetime)


class _Wrong(_datetime, metaclass=_Kind):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> _datetime:
        return _datetime.fromtimestamp(_time(), tz)


time.time = _time
time.time_ns = lambda: int(_time() * 1e9)
datetime.datetime = _Wrong
