"""Finished runs of a consensus in a folder, so that an interrupted call goes on where it was."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from unmix.core.replicates import Run


class RunFolder:
    """One file per run, in a folder named after the data, the options and the seed; other calls' files stay untouched.

    Parameters
    ----------
    folder
        Where to keep runs.
    X
        The matrix that is factorised.
    options
        Whatever else a run depends on.
    """

    def __init__(self, folder: "str | Path", X: sparse.csr_array, *options: Any) -> None:
        digest = hashlib.sha256(pickle.dumps((X.shape, options)))
        for part in (X.data, X.indices, X.indptr):
            digest.update(np.ascontiguousarray(part).data)
        self.path = Path(folder) / digest.hexdigest()[:16]
        self.path.mkdir(parents=True, exist_ok=True)

    def finished(self) -> dict[int, Run]:
        """Return the runs that were done before, by number."""
        found = {}
        for file in self.path.glob("run*.npz"):
            with np.load(file) as stored:
                found[int(file.stem[3:])] = Run(stored["spectra"], stored["labels"], float(stored["error"]))
        return found

    def keep(self, number: int, run: Run) -> None:
        """Store one run; a file exists whole or not at all."""
        temporary = self.path / f"writing{number}.npz"
        np.savez(temporary, spectra=run.spectra, labels=run.labels, error=run.error)
        temporary.replace(self.path / f"run{number}.npz")
