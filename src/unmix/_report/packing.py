"""Numbers and texts as JSON that a page can hold: compressed, exact, and unable to end the script they stand in."""

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

TYPES = {"f4": "<f4", "f8": "<f8", "i4": "<i4"}
"""What arrays are packed as: little-endian numbers."""


def pack_array(values: Any) -> dict[str, Any]:
    """Return an array as its type, its shape and its compressed bytes, the last axis varying slowest.

    So that the values of one column lie together. float32 stays float32, integers become int32, all else float64.

    Examples
    --------
    >>> packed = pack_array([[1.0, 2.0], [3.0, 4.0]])
    >>> packed["type"], packed["shape"], unpack_array(packed).tolist()
    ('f8', [2, 2], [[1.0, 2.0], [3.0, 4.0]])
    """
    array = np.asarray(values)
    kind = "f4" if array.dtype == np.float32 else "i4" if array.dtype.kind in "iu" else "f8"
    data = np.asfortranarray(array, dtype=TYPES[kind]).tobytes(order="F")
    return {"type": kind, "shape": list(array.shape), "gzip": _compressed(data)}


def unpack_array(packed: Mapping[str, Any]) -> np.ndarray:
    """Return the array that was packed."""
    data = gzip.decompress(base64.b64decode(packed["gzip"]))
    return np.frombuffer(data, dtype=TYPES[packed["type"]]).reshape(packed["shape"], order="F")


def pack_texts(texts: Any) -> dict[str, Any]:
    """Return texts, compressed.

    Examples
    --------
    >>> unpack_texts(pack_texts(["a", "b"]))
    ['a', 'b']
    """
    return {"type": "text", "gzip": _compressed(json.dumps([str(text) for text in texts]).encode())}


def unpack_texts(packed: Mapping[str, Any]) -> list[str]:
    """Return the texts that were packed."""
    return json.loads(gzip.decompress(base64.b64decode(packed["gzip"])))


def pack_column(values: pd.Series) -> dict[str, Any]:
    """Return a column as numbers, or as codes with the names of their categories; -1 is a missing one."""
    if values.dtype.kind in "biuf":
        return {"kind": "number", "values": pack_array(values.to_numpy(dtype=np.float64, na_value=np.nan))}
    categories = pd.Categorical(values)
    names = [str(name) for name in categories.categories]
    return {"kind": "category", "names": names, "values": pack_array(categories.codes.astype(np.int32))}


def script_json(value: Any) -> str:
    r"""Return JSON in which nothing can end a script, open a comment or be taken for markup.

    Examples
    --------
    >>> script_json("</script>")
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _compressed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, compresslevel=6, mtime=0)).decode("ascii")
