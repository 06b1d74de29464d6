"""Files of several modalities (.h5mu), whole or one modality of them."""

from pathlib import Path
from typing import Any

from unmix._adata.files import open_modalities
from unmix.cli._files import FileProblem, opened, read_data

SUFFIX = ".h5mu"


def imported_mudata() -> Any:
    """Return the module, or say how to get it."""
    try:
        import mudata
    except ImportError as error:
        msg = "modalities are read and written as MuData; install it with `pip install mudata`."
        raise FileProblem(msg) from error
    return mudata


def read_mudata(path: Path) -> Any:
    """Read a MuData.

    Raises
    ------
    FileProblem
        If it cannot be read, or `mudata` is not installed.
    """
    imported_mudata()
    return opened(path, open_modalities)


def read_one(path: Path, modality: str | None) -> Any:
    """Read an AnnData, or one modality of a file that holds several.

    Raises
    ------
    FileProblem
        If it cannot be read, no modality is named for a file of several, or one that it lacks.
    """
    if path.suffix != SUFFIX:
        if modality is not None:
            msg = f"--modality is for {SUFFIX}; {path} holds one object."
            raise FileProblem(msg)
        return read_data(path)
    parts = read_mudata(path).mod
    if modality not in parts:
        what = "--modality must name one of" if modality is None else f"no modality {modality!r}; it has"
        msg = f"{path}: {what} {', '.join(map(str, parts))}."
        raise FileProblem(msg)
    return parts[modality]
