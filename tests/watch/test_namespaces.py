"""Mounts that come and go, and limits of the kernel, made for real in namespaces of our own."""

import functools
import subprocess
import sys
from pathlib import Path

import pytest
from namespace import SCENARIOS


@functools.cache
def _unshare() -> tuple[str, ...]:
    """Where users may not have namespaces (below a chroot), root can mount in one of its own all the same."""
    tried = subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True)
    return ("unshare", "-m" if tried.returncode else "-Urm")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_in_a_namespace_of_its_own(scenario, tmp_path):
    """Works for root and for an ordinary user; each scenario's docstring says what must happen."""
    script = Path(__file__).parent / "namespace.py"
    done = subprocess.run([*_unshare(), sys.executable, str(script), scenario, str(tmp_path)],
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
