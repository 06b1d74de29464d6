"""`python -m unmix` is the command `unmix`."""

from unmix.cli import main

main()
