"""A recorder process: `python -m biliupd.record.recorder SPEC.json [DESCRIPTOR]`.

Records one address into one broadcast's folder until it ends, and says by its exit code why (spec.Exit). Imports no
configuration, no database, no web and no platform code. Logs lines "LEVEL message" to stderr.
"""

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Protocol

from biliupd.errors import BiliupdError
from biliupd.record import broadcast as broadcasts
from biliupd.record import spec as specs
from biliupd.record.session import DISK_FULL, Ending, Session
from biliupd.record.spec import Exit

log = logging.getLogger("recorder")

STOPS = (signal.SIGTERM, signal.SIGINT)


def main(argv: list[str]) -> int:
    """Run the recorder of the spec file named in `argv`; returns its exit code, 1 when it cannot even begin."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)  # its lines hold addresses
    try:
        spec = specs.read(Path(argv[1]))
        directory = Path(spec.directory)
        # what started it hands over the lock of the folder; by hand there is none to hand over
        held = int(argv[2]) if len(argv) > 2 else broadcasts.lock(directory)
        if held is None:
            log.error("another recorder is at work in this folder")
            return 1
        broadcast = broadcasts.read(directory)
    except (BiliupdError, OSError, IndexError, ValueError) as error:
        log.error("cannot begin: %s", error)
        return 1
    if broadcast is None:
        log.error("cannot begin: the folder has no broadcast.json")
        return 1
    session = Session(spec, broadcast, Path(argv[1]))

    def stop(number: int, frame: FrameType | None) -> None:
        session.stop_asked = True

    for number in STOPS:
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # the nursery held them back until now
    exit = record(session)
    log.info("ended: %s", exit.reason)
    os.close(held)
    return exit


class Engine(Protocol):
    """One kind of recording."""

    def run(self) -> None:
        """Record until `Ending` is raised."""

    def flush(self) -> None:
        """Write what has arrived: nothing of it is to be lost because the run ends."""


def engine(session: Session) -> Engine:
    """What records the protocol of this run. Only its own code is loaded."""
    if session.spec.stream.protocol == "hls":
        from biliupd.record.hls.stream import HlsStream

        return HlsStream(session)
    if session.spec.stream.protocol == "ffmpeg":
        from biliupd.record.ffmpeg.stream import FfmpegStream

        return FfmpegStream(session)
    from biliupd.record.flv.stream import FlvStream

    return FlvStream(session)


def record(session: Session) -> Exit:
    """Record until something ends it; the part is ended properly and broadcast.json says why."""
    session.begin()
    stream = engine(session)
    exit = Exit.NEEDS_URL
    try:
        try:
            stream.run()
        except Ending as ending:
            exit = ending.exit
            stream.flush()
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        log.error("no space left: %s", error.strerror)
        exit = Exit.NO_SPACE
    session.end(exit)
    return exit


if __name__ == "__main__":
    code = main(sys.argv)
    logging.shutdown()
    os._exit(code)  # the network thread may still wait for a silent server
