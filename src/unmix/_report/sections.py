"""Sections side by side: the coordinates, images and names of all on one map."""

import math
from collections.abc import Sequence

import numpy as np

from unmix._report.place import Place, encoded_image
from unmix.pl._canvas import short
from unmix.pl._tissue import Tissue


def side_by_side(sections: Sequence[Tissue], n_obs: int) -> Place:
    """Lay sections out in rows of a grid, each below its name, at one scale.

    Spots become equally large where scale factors give their size; sections without them keep the unit of their coordinates.
    """
    scales = _scales(sections)
    diameters = [s.diameter * scale for s, scale in zip(sections, scales, strict=True)]
    diameter = min([d for d, s in zip(diameters, sections, strict=True) if s.spot or len(s.xy) > 1] or diameters)
    down = 1 if sections[0].basis == "spatial" else -1
    boxes = [_box(s.xy * [1, down] * scale, diameter) for s, scale in zip(sections, scales, strict=True)]
    width, height = np.max([high - low for low, high in boxes], axis=0)
    columns = math.ceil(math.sqrt(len(sections)))
    gap = 0.04 * (math.ceil(len(sections) / columns) + 1) * max(width, height)
    xy, images, labels = np.full((n_obs, 2), np.nan), [], []
    for k, (section, scale, (low, high)) in enumerate(zip(sections, scales, boxes, strict=True)):
        row, column = divmod(k, columns)
        middle, top = column * (width + gap) + width / 2, row * (height + gap)
        shift = np.array([middle - (low[0] + high[0]) / 2, top - low[1]])
        xy[section.rows] = (section.xy * [1, down] * scale + shift) * [1, down]
        labels.append({"name": short(str(section.section)), "x": middle, "y": down * (top - gap / 2), "height": gap})
        if section.image is not None:
            images += _cropped(*section.image, low / scale, high / scale, scale, shift)
    return Place(sections[0].basis, xy, diameter, upside_down=down > 0, images=images, labels=labels)


def _scales(sections: Sequence[Tissue]) -> np.ndarray:
    """Return what the coordinates of every section are multiplied by."""
    spots = np.array([section.spot for section in sections])
    known = spots[spots > 0]
    same = np.ones(len(spots))
    return np.divide(known[0], spots, out=same, where=spots > 0) if len(known) else same


def _box(xy: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of what spots and a margin around them take up."""
    return xy.min(axis=0) - margin, xy.max(axis=0) + margin


def _cropped(
    pixels: np.ndarray, per_unit: float, low: np.ndarray, high: np.ndarray, scale: float, shift: np.ndarray
) -> list[dict]:
    """Return the part of an image that lies in a box, in its place; nothing where the box lies beside the image."""
    size = np.array(pixels.shape[1::-1])
    first = np.clip(np.ceil(low * per_unit), 0, size).astype(int)
    last = np.clip(np.floor(high * per_unit), 0, size).astype(int)
    if (last <= first).any():
        return []
    part = pixels[first[1] : last[1], first[0] : last[0]]
    return [encoded_image(part, per_unit / scale, first / per_unit * scale + shift)]
