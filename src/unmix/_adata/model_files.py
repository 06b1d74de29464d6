"""Fitted models in files of their own: safetensors, which hold numbers and a text, and nothing that could be run."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from unmix._adata.arguments import checked
from unmix._adata.files import replacing
from unmix._adata.models import TOOLS, checked_fit
from unmix._adata.stored import stored_entry
from unmix._adata.write import storable

if TYPE_CHECKING:
    from anndata import AnnData

FORMAT = "unmix.autoencoder/1"
MAX_HEADER = 64 * 2**20
"""Bytes of a header that are read at most."""
SEPARATOR = "::"


@checked
def save(adata: "AnnData", path: str | Path, *, key: str = "ae") -> None:
    """Write an autoencoder that is stored in an AnnData to a file of its own, without the cells.

    Parameters
    ----------
    adata
        Object that :func:`unmix.tl.autoencoder` or :func:`unmix.tl.zinb_ae` has written to.
    path
        File to write (.safetensors); one that exists is replaced.
    key
        The tool's `key_added`.

    Raises
    ------
    KeyError
        If no autoencoder is stored under the key.
    ValueError
        If what is stored was changed since the fit.

    Examples
    --------
    >>> import tempfile, unmix as um
    >>> _, cells = um.datasets.pbmc_spots()
    >>> um.tl.autoencoder(cells, 5, likelihood="nb", max_epochs=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     um.save(cells, f"{folder}/model.safetensors")
    ...     model = um.load(f"{folder}/model.safetensors")
    >>> um.tl.transform(cells, model, key="ae", key_added="again")
    >>> bool((cells.obsm["X_again"] == cells.obsm["X_ae"]).all())
    True
    """
    from safetensors.numpy import save_file

    tensors: dict[str, np.ndarray] = {}
    entry = stored_entry(adata, key, *TOOLS)
    checked_fit(entry, f"{entry.where} is no longer as the tool left it, so that it cannot be saved")
    text = _without_arrays(storable(entry), (), tensors)
    with replacing(Path(path)) as temporary:
        save_file(tensors, temporary, metadata={"format": FORMAT, "key": key, "entry": json.dumps(text)})


@checked
def load(path: str | Path) -> "AnnData":
    """Read an autoencoder that :func:`unmix.save` has written.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    An AnnData without observations over the genes of the model, which holds it in `uns[key]`: what
    :func:`unmix.tl.transform` and :func:`unmix.tl.denoise` take as `fitted`.

    Raises
    ------
    ValueError
        If the file is damaged, larger or smaller than its header says, or no such model.

    Examples
    --------
    >>> import tempfile, unmix as um
    >>> _, cells = um.datasets.pbmc_spots()
    >>> um.tl.autoencoder(cells, 5, likelihood="nb", max_epochs=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     um.save(cells, f"{folder}/model.safetensors")
    ...     model = um.load(f"{folder}/model.safetensors")
    >>> model.n_obs, model.n_vars, list(model.uns)
    (0, 765, ['ae'])
    """
    from anndata import AnnData
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    check_header(path)
    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                msg = f"{path} holds no autoencoder of this package; its format is {about.get('format')!r}."
                raise ValueError(msg)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError) as error:  # TypeError: a kind of numbers that NumPy lacks
        msg = f"{path} is damaged: {error}"
        raise ValueError(msg) from error
    entry = _entry_of(path, about, tensors)
    checked_fit(entry, f"{path} is damaged")
    var = pd.DataFrame(index=pd.Index(entry["genes"], dtype=object))
    return AnnData(np.zeros((0, len(var)), np.float32), var=var, uns={about["key"]: entry})


def _entry_of(path: Path, about: dict[str, str], tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return what `uns` held: the text of the header, and the arrays in their places."""
    try:
        entry = json.loads(about["entry"], object_hook=_array_of_text)
        for name, value in tensors.items():
            *folders, last = name.split(SEPARATOR)
            at = entry
            for folder in folders:
                at = at.setdefault(folder, {})
            at[last] = value
        fits = isinstance(entry["params"], dict) and entry["params"].get("tool") in TOOLS and bool(about["key"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        msg = f"{path} is damaged: {error!r}"
        raise ValueError(msg) from error
    if not fits:
        msg = f"{path} is damaged: it does not say which tool made the model, or under which key."
        raise ValueError(msg)
    return entry


def _without_arrays(value: Any, where: tuple[str, ...], tensors: dict[str, np.ndarray]) -> Any:
    """Move arrays of numbers to `tensors`; return the rest as what JSON holds."""
    if isinstance(value, dict):
        found = {k: _without_arrays(v, (*where, k), tensors) for k, v in value.items()}
        return {k: v for k, v in found.items() if v is not None or value[k] is None}
    if isinstance(value, np.ndarray) and value.dtype.kind in "US":
        return {"text": value.tolist()}
    if isinstance(value, np.ndarray):
        tensors[SEPARATOR.join(where)] = np.asarray(value, order="C")
        return None
    return value.item() if isinstance(value, np.generic) else value


def _array_of_text(value: dict[str, Any]) -> Any:
    return np.array(value["text"], dtype=str) if list(value) == ["text"] else value


def check_header(path: Path) -> None:
    """Refuse a header that says more than the file holds, before any of it is read."""
    if not path.is_file():
        msg = f"there is no file {path}."
        raise FileNotFoundError(msg)
    size = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if size < 8 or header > min(size - 8, MAX_HEADER):
        msg = f"{path} is damaged or no safetensors file: {size} bytes, of which the header would be {header}."
        raise ValueError(msg)
