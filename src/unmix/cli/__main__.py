"""`python -m unmix.cli` is the command `unmix`."""

from unmix.cli import main

main()
