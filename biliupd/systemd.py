"""Tells systemd how the service is doing (sd_notify(3)); without systemd it does nothing."""

import os
import socket


def notify(text: str) -> None:
    """Send one state, such as READY=1, WATCHDOG=1, STOPPING=1 or STATUS=…."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(text.encode(), address)


def watchdog_seconds() -> float | None:
    """How often systemd wants to hear WATCHDOG=1; None when it does not care about this process."""
    pid = os.environ.get("WATCHDOG_PID")
    if "WATCHDOG_USEC" not in os.environ or (pid and pid != str(os.getpid())):
        return None
    return int(os.environ["WATCHDOG_USEC"]) / 1e6
