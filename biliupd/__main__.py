"""`python -m biliupd` is the command `biliupd`."""

from biliupd.cli import main

main()
