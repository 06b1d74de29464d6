"""The tutorial runs, and its checks against the truth hold."""

import os
import subprocess
import sys
from pathlib import Path

NOTEBOOK = Path(__file__).resolve().parents[2] / "tutorials" / "2-archetypes.ipynb"


def test_the_tutorial_runs():
    code = f"import nbformat, nbclient; nbclient.NotebookClient(nbformat.read({str(NOTEBOOK)!r}, 4), timeout=120).execute()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
