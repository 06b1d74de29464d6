"""What a file says of itself, checked before any of it is read: sizes that are not there, and ways out of the file."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SPARE = 2**28
"""Bytes of an array that may be declared whatever the file holds of it."""
LARGEST_RATIO = 20_000
"""Bytes of an array that a stored byte may stand for; compressed zeros reach about a thousand."""


def check_hdf5(path: Path) -> None:
    """Refuse a file that leads to other files, or whose arrays are far larger than what it holds of them.

    Raises
    ------
    ValueError
        If it does.
    OSError
        If it is no HDF5 file.
    """
    import h5py

    with h5py.File(path, "r") as file:
        for name, item in _items(file):
            if isinstance(item, h5py.Dataset):
                if item.is_virtual or item.external:
                    msg = f"the array {name!r} is kept in another file, which is not read."
                    raise ValueError(msg)
                _check_size(name, item.shape, item.dtype, item.id.get_storage_size())


def _items(file: Any) -> Iterator[tuple[str, Any]]:
    """Walk over all groups and arrays of an HDF5 file, each once; refuse links to other files, and back to a group above."""
    import h5py

    seen: set[int] = set()
    waiting: list[tuple[str, Any, tuple[int, ...]]] = [("", file, (h5py.h5o.get_info(file.id).addr,))]
    while waiting:
        where, group, above = waiting.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink) or name not in group:
                msg = f"the entry {where}/{name} is a link out of the file, or to nothing, which is not followed."
                raise ValueError(msg)
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in above:
                msg = f"the entry {where}/{name} leads back to a group that holds it."
                raise ValueError(msg)
            if address in seen:
                continue
            seen.add(address)
            yield f"{where}/{name}", item
            if isinstance(item, h5py.Group):
                waiting.append((f"{where}/{name}", item, (*above, address)))


def check_tenx(path: Path) -> None:
    """Refuse a 10x file whose matrix points outside of itself, before it is turned and cut, which crashes then.

    Raises
    ------
    ValueError
        If it does.
    """
    import h5py

    with h5py.File(path, "r") as file:
        for name, group in file.items():
            if not isinstance(group, h5py.Group) or not {"indices", "indptr", "shape"} <= set(group):
                continue
            indices, indptr, shape = (np.asarray(group[part][()]) for part in ("indices", "indptr", "shape"))
            whole = all(a.dtype.kind in "iu" and a.ndim == 1 for a in (indices, indptr, shape))
            if not whole or len(shape) != 2 or not _fits(indices, indptr, int(shape[0]), int(shape[1])):
                msg = f"the matrix {name!r} is damaged: its indices do not fit the shape {shape.tolist()}."
                raise ValueError(msg)


def _fits(indices: np.ndarray, indptr: np.ndarray, n_genes: int, n_cells: int) -> bool:
    """Tell whether columns of a sparse matrix lie in it."""
    ends = len(indptr) == n_cells + 1 and indptr[0] == 0 and indptr[-1] == len(indices)
    rises = bool((indptr[1:] >= indptr[:-1]).all())
    return ends and rises and (len(indices) == 0 or (indices.min() >= 0 and int(indices.max()) < n_genes))


def check_folder(path: Path) -> None:
    """Refuse a folder with links out of it, or whose zarr arrays are far larger than what it holds of them.

    Raises
    ------
    ValueError
        If it is one.
    """
    root = os.path.realpath(path)
    for entry in sorted(path.rglob("*")):
        if entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(root):
            msg = f"{entry.relative_to(path)} is a link out of the folder, which is not followed."
            raise ValueError(msg)
        if entry.name in (".zarray", "zarr.json") and entry.is_file():
            _check_zarr(entry, str(entry.parent.relative_to(path)))


def _check_zarr(entry: Path, name: str) -> None:
    about = json.loads(entry.read_text())
    if not isinstance(about, dict):
        msg = f"{name}/{entry.name} does not describe an array or a group."
        raise ValueError(msg)
    if "shape" not in about:
        return
    kind = about.get("dtype", about.get("data_type", "f8"))
    try:
        dtype = np.dtype(kind if isinstance(kind, str) and kind != "string" else "f8")
        shape = tuple(int(length) for length in about["shape"])
    except (TypeError, ValueError):
        msg = f"{name}/{entry.name} describes no array: shape {about['shape']!r}, type {kind!r}."
        raise ValueError(msg) from None
    _check_size(name, shape, dtype, sum(f.stat().st_size for f in entry.parent.rglob("*") if f.is_file()))


def _check_size(name: str, shape: Any, dtype: np.dtype, stored: int) -> None:
    """Refuse an array that is declared far larger than what is stored of it."""
    declared = dtype.itemsize
    for length in shape or ():
        declared *= int(length)
    if declared > max(SPARE, LARGEST_RATIO * stored):
        msg = f"{name} is declared with the shape {tuple(shape)}, {declared / 2**30:.1f} GiB, but holds {stored} bytes."
        raise ValueError(msg)
