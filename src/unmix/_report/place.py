"""What a map is drawn from: coordinates, the images under them, the names of sections."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

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
    images: list[dict[str, Any]] = field(default_factory=list)
    """Images as data URIs, each with its upper left corner, width and height in the units of the coordinates."""
    labels: list[dict[str, Any]] = field(default_factory=list)
    """Names of sections, each with the middle and the height of its line."""


def encoded_image(pixels: np.ndarray, per_unit: float, corner: Sequence[float] = (0.0, 0.0)) -> dict[str, Any]:
    """Return an image as a data URI, with its upper left corner and its size in the units of the coordinates."""
    from PIL import Image

    height, width = pixels.shape[:2]
    picture = Image.fromarray(_bytes(pixels)).convert("RGB")
    picture.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    place = {"x": float(corner[0]), "y": float(corner[1]), "width": width / per_unit, "height": height / per_unit}
    return {"uri": uri, **place}


def _bytes(pixels: np.ndarray) -> np.ndarray:
    """Return an image of numbers from 0 to 1, or of bytes, as bytes; without transparency."""
    values = np.asarray(pixels)
    if values.dtype.kind == "f":
        values = np.clip(np.nan_to_num(values) * 255 + 0.5, 0, 255)
    if values.ndim == 3 and values.shape[2] not in (3, 4):
        values = values[:, :, 0]
    return values.astype(np.uint8)
