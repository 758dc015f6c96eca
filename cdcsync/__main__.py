"""`python -m cdcsync` is the command `cdcsync`."""

from cdcsync.cli import main

main()
