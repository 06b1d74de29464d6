"""Hostile input for every public function and every file that the shell reads: `python -m tests.fuzz --help`."""
