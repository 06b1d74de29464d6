"""`unmix info`: what is inside a file."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from unmix.cli._files import read_data
from unmix.cli._modalities import SUFFIX, read_mudata


def info(file: Path, *, as_json: bool = False) -> None:
    """Say what is in a file: its size, its matrices, and the results that unmix has left.

    Parameters
    ----------
    file
        .h5ad, .zarr, a 10x .h5, a 10x mtx folder, or .h5mu with several modalities.
    as_json
        Print one JSON object instead of lines.
    """
    if file.suffix == SUFFIX:
        parts = {str(name): _told(part) for name, part in read_mudata(file).mod.items()}
        lines = "".join(f"modality {name}: {_lines(part)}" for name, part in parts.items())
        sys.stdout.write(json.dumps({"modalities": parts}) + "\n" if as_json else lines)
        return
    told = _told(read_data(file))
    sys.stdout.write(json.dumps(told) + "\n" if as_json else _lines(told))


def _told(adata: Any) -> dict[str, Any]:
    """Return what there is to say of one object."""
    from unmix import get

    matrices = {"X": adata.X, **adata.layers} if adata.X is not None else dict(adata.layers)
    return {
        "observations": adata.n_obs,
        "genes": adata.n_vars,
        "matrices": {str(name): _kind(matrix) for name, matrix in matrices.items()},
        "obs": [str(name) for name in adata.obs],
        "results": get.results(adata).reset_index().to_dict("records"),
    }


def _kind(matrix: Any) -> str:
    """Say how a matrix is stored, and whether it holds counts."""
    values = np.asarray(getattr(matrix, "data", matrix) if hasattr(matrix, "nnz") else matrix)
    sound = bool(np.isfinite(values).all()) and bool((values >= 0).all())
    whole = sound and bool((values == np.rint(values)).all())
    share = np.count_nonzero(values) / max(np.prod(matrix.shape), 1)  # zeros may be stored
    stored = f"{share:.1%} non-zero" if hasattr(matrix, "nnz") else "dense"
    return f"{stored}, {values.dtype}, {'counts' if whole else _what_else(matrix) if sound else 'not counts'}"


def _what_else(matrix: Any) -> str:
    """Say whether values that are no counts were made of counts."""
    from unmix.core.lattice import scale_of

    scale = scale_of(matrix)
    if scale is None:
        return "not counts"
    return f"{'normalised' if scale.log is None else 'log-normalised'} counts (unmix recover-counts gets them back)"


def _lines(told: dict) -> str:
    lines = [f"{told['observations']} observations x {told['genes']} genes"]
    lines += [f"  {name}: {kind}" for name, kind in told["matrices"].items()]
    lines += [f"  obs: {', '.join(told['obs'])}"] if told["obs"] else []
    lines += [] if told["results"] else ["no result of unmix"]
    for row in told["results"]:
        lines += [f"{row['key']}: tl.{row['tool']}, unmix {row['version']}", *(f"  {slot}" for slot in row["slots"])]
    return "\n".join(lines) + "\n"
