"""What a script may conclude from the exit code of a command.

0 done, 1 refused or failed for good, 2 wrong usage, 3 somebody works on the same thing already, 4 a newer biliupd wrote
the catalog, 75 worth another try later, 76 nobody knows whether it was published (the next run finds out first), 77
waits for a person, 78 the configuration cannot be used. Ended by a signal: 128 and its number. After 3, 4 and 78
systemd does not start the daemon again.
"""

from biliupd.errors import BiliupdError, ConfigError, Cooling, NeedsPerson, TemporaryError, UnknownOutcome

FAILED, RUNNING, NEWER, LATER, UNKNOWN, PERSON, CONFIG = 1, 3, 4, 75, 76, 77, 78


def exit_code(error: BiliupdError) -> int:
    """The code for one of our errors."""
    from biliupd.catalog.database import Newer
    from biliupd.lock import AlreadyRunning
    from biliupd.publish.journal import UnderWay

    if isinstance(error, ConfigError):
        return CONFIG
    if isinstance(error, AlreadyRunning | UnderWay):
        return RUNNING
    if isinstance(error, Newer):
        return NEWER
    if isinstance(error, UnknownOutcome):
        return UNKNOWN
    if isinstance(error, NeedsPerson) and not (isinstance(error, Cooling) and "captcha" not in error.hint):
        return PERSON
    return LATER if isinstance(error, TemporaryError) else FAILED
