"""Where the observations lie: on the tissue with its image, on an embedding, or nowhere."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData

from unmix.pl._tissue import tissue

BASES = ("spatial", "X_umap", "X_tsne")
"""Where coordinates are looked for, in this order."""
LARGEST = 2000
"""Pixels of the longer side of an image; larger ones are reduced."""


@dataclass(frozen=True)
class Place:
    """Coordinates of the observations, (n_obs, 2), and how they are drawn."""

    basis: str
    xy: np.ndarray
    diameter: float
    upside_down: bool
    """Whether the second coordinate grows downwards, as rows of images do."""
    image: dict[str, Any] | None = None
    """The image as a data URI, with its width and height in the units of the coordinates."""


def find_place(adata: AnnData, basis: str | None) -> Place | None:
    """Return the coordinates under `basis`, or the first that there are.

    Raises
    ------
    KeyError
        If `basis` is given and does not exist.
    ValueError
        If it holds no two finite numbers for every observation.
    """
    found = basis if basis is not None else next((name for name in BASES if name in adata.obsm), None)
    if found is None:
        return None
    here = tissue(adata, found)
    if here.xy.shape[1] < 2:
        msg = f"obsm[{found!r}] must hold two coordinates for every observation; it holds one."
        raise ValueError(msg)
    image = None if here.image is None else encoded_image(*here.image)
    return Place(found, here.xy, here.diameter, upside_down=found == "spatial", image=image)


def encoded_image(pixels: np.ndarray, per_unit: float) -> dict[str, Any]:
    """Return an image as a data URI, with its size in the units of the coordinates."""
    from PIL import Image

    height, width = pixels.shape[:2]
    picture = Image.fromarray(_bytes(pixels)).convert("RGB")
    picture.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"uri": uri, "width": width / per_unit, "height": height / per_unit}


def _bytes(pixels: np.ndarray) -> np.ndarray:
    """Return an image of numbers from 0 to 1, or of bytes, as bytes; without transparency."""
    values = np.asarray(pixels)
    if values.dtype.kind == "f":
        values = np.clip(np.nan_to_num(values) * 255 + 0.5, 0, 255)
    if values.ndim == 3 and values.shape[2] not in (3, 4):
        values = values[:, :, 0]
    return values.astype(np.uint8)
