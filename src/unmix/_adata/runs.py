"""What a long call has finished, in a folder, so that one that was interrupted or killed goes on where it was."""

import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from scipy import sparse

from unmix import __version__
from unmix._adata.files import replacing
from unmix._adata.model_files import check_header
from unmix._settings import logger
from unmix.core.replicates import Run

if TYPE_CHECKING:
    from unmix.core.autoencoder import State


def fingerprint(blocks: Iterable[Any], *options: Any) -> str:
    """Return 16 hexadecimal digits that depend on every entry of a matrix, given in blocks of rows, and on options."""
    digest = hashlib.sha256(repr((__version__, options)).encode())
    for block in blocks:
        parts = (block.data, block.indices, block.indptr) if sparse.issparse(block) else (block,)
        for part in parts:
            digest.update(f"{part.dtype} {part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()[:16]


class RunFolder:
    """One file per run, in a folder named after the data, the options and the seed; other calls' files stay untouched.

    Processes may share the folder: a file exists whole or not at all, and all write the same into it.

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
        self.shape = X.shape
        self.path = Path(folder) / fingerprint([X], X.shape, *options)
        self.path.mkdir(parents=True, exist_ok=True)

    def finished(self) -> dict[int, Run]:
        """Return the runs that were done before, by number; a file that is damaged counts as not done."""
        found = {}
        for file in sorted(self.path.glob("run*.npz")):
            try:
                with file.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
                    run = Run(stored["spectra"], stored["labels"], float(stored["error"]))
                    number = int(file.stem[3:])
            except (OSError, ValueError, KeyError, EOFError, TypeError, RuntimeError, BadZipFile, zlib.error) as error:
                logger.warning("%s is damaged and is made again: %s", file, error)
                continue
            if run.spectra.ndim == 2 and run.spectra.shape[1] == self.shape[1] and np.isfinite(run.spectra).all():
                found[number] = run
        return found

    def keep(self, number: int, run: Run) -> None:
        """Store one run; a file exists whole or not at all."""
        with replacing(self.path / f"run{number}.npz") as temporary:
            np.savez(temporary, spectra=run.spectra, labels=run.labels, error=run.error)


@dataclass(frozen=True)
class EpochFile:
    """Where the training of an autoencoder stood after its last complete epoch."""

    path: Path

    def load(self) -> "State | None":
        """Return what was kept, or `None` where there is nothing, or it is damaged."""
        from safetensors import SafetensorError, safe_open

        from unmix.core.autoencoder import State

        if not self.path.is_file():
            return None
        try:
            check_header(self.path)
            with safe_open(self.path, framework="numpy") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if about.get("sha256") != _checksum(tensors, about.get("numbers", "")):
                msg = "its checksum is another"
                raise ValueError(msg)
        except (OSError, ValueError, SafetensorError) as error:
            logger.warning("%s is damaged; training begins anew: %s", self.path, error)
            return None
        arrays: dict[str, dict[str, np.ndarray]] = {"weights": {}, "best": {}, "moments": {}}
        for name, value in tensors.items():
            part, key = name.split("/", 1)
            arrays[part][key] = value
        numbers: dict[str, Any] = json.loads(about["numbers"])
        return State(weights=arrays["weights"], best=arrays["best"], moments=arrays["moments"], **numbers)

    def keep(self, state: "State") -> None:
        """Store a state; the file exists whole or not at all."""
        from safetensors.numpy import save_file

        self.path.parent.mkdir(parents=True, exist_ok=True)
        stored = asdict(state)
        parts = {part: stored.pop(part) for part in ("weights", "best", "moments")}
        tensors = {f"{part}/{k}": np.asarray(v, order="C") for part, arrays in parts.items() for k, v in arrays.items()}
        numbers = json.dumps(stored)
        with replacing(self.path) as temporary:
            save_file(tensors, temporary, metadata={"numbers": numbers, "sha256": _checksum(tensors, numbers)})


def _checksum(tensors: dict[str, np.ndarray], numbers: str) -> str:
    digest = hashlib.sha256(numbers.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()
