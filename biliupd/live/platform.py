"""The platforms there are, in the order they are asked whose address this is.

Whoever writes an adapter for a site imports the values from `live.status` and adds it to `PLATFORMS` before the
general ones. Choosing a platform makes no request.
"""

from biliupd.live.direct import Direct
from biliupd.live.rehearsal import Rehearsal
from biliupd.live.status import LiveStatus, LiveStream, Platform, State
from biliupd.live.via_streamlink import ViaStreamlink

__all__ = ["PLATFORMS", "LiveStatus", "LiveStream", "Platform", "State", "answers", "platform_for"]

PLATFORMS: tuple[Platform, ...] = (Rehearsal(), Direct(), ViaStreamlink())


def platform_for(url: str) -> Platform | None:
    """The first platform that takes the address."""
    return next((platform for platform in PLATFORMS if platform.matches(url)), None)


def answers(url: str) -> bool:
    """Whether any platform takes the address; for the check of a configuration."""
    return platform_for(url) is not None
