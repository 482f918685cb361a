"""Run one program and write its wall time, processor time and peak memory to stdout as JSON.

A small process of its own, because the kernel counts to a program's peak memory what its parent had before the exec.
"""

import json
import os
import sys
import time


def main() -> None:
    output, *argv = sys.argv[1:]
    began = time.monotonic()
    child = os.fork()
    if not child:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.execvp(argv[0], argv)
    _, status, usage = os.wait4(child, 0)
    sys.stdout.write(json.dumps({
        "status": os.waitstatus_to_exitcode(status), "wall_seconds": time.monotonic() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_bytes": usage.ru_maxrss * 1024}))


if __name__ == "__main__":
    main()
