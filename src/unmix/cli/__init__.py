"""The same functions from the shell: `unmix --help`."""

from unmix.cli._app import app, main

__all__ = ["app", "main"]
