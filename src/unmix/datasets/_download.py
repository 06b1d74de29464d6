"""Public data sets, downloaded once and checked against their SHA-256."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from unmix._adata.arguments import checked

SCVERSE = "https://exampledata.scverse.org/squidpy"

REGISTRY = {
    "visium_mouse_brain": (
        f"{SCVERSE}/figshare/visium_hne_adata.h5ad",
        "3571e6b84dd32c73ece8ae0bebbd4758e77c6fdd321b2bbe0d4ffa8ed56e1cbe",
    ),
    "visium_human_lymph_node": (
        f"{SCVERSE}/10x_genomics/V1_Human_Lymph_Node/V1_Human_Lymph_Node_filtered_feature_bc_matrix.h5",
        "86fd533eb907450e7125b9820183a0ca73776eeafcc5eddae5695b6aabfd9139",
    ),
    "mouse_cortex_cells": (
        f"{SCVERSE}/figshare/sc_mouse_cortex.h5ad",
        "3e0a26e1af06c1ea8f53a808ee683bf950de8cc03ee48bd291f95eeca6056aac",
    ),
}
"""Name -> (address, SHA-256), as published in squidpy 1.8's registry of data sets."""


@checked
def fetch(source: str, sha256: str | None = None, *, cache: str | Path | None = None) -> Path:
    """Download a file once and return where it is.

    The file appears under its name only when it is complete and has the given SHA-256; a file that is there already is
    checked again, and replaced if it is not the one.

    Parameters
    ----------
    source
        A name in :data:`unmix.datasets.REGISTRY`, or an address (`https://...`).
    sha256
        SHA-256 of the file, 64 hexadecimal digits; needed with an address.
    cache
        Folder to keep files in; `None` for the user's cache folder.

    Returns
    -------
    Path of the file.

    Raises
    ------
    ValueError
        If the name is not known, an address comes without its SHA-256, or what was downloaded has another one.

    Examples
    --------
    >>> import hashlib, pathlib, tempfile, unmix as um
    >>> path = um.datasets.fetch("visium_mouse_brain")  # doctest: +SKIP

    A file that is there already, and is the right one, is not downloaded again:

    >>> digest = hashlib.sha256(b"counts").hexdigest()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, f"{digest[:12]}-my.h5ad").write_bytes(b"counts")
    ...     um.datasets.fetch("https://example.org/my.h5ad", digest, cache=folder).read_bytes()
    b'counts'
    """
    import pooch

    url, digest = _resolve(source, sha256)
    return Path(
        pooch.retrieve(
            url,
            known_hash=f"sha256:{digest}",
            fname=f"{digest[:12]}-{urlsplit(url).path.rsplit('/', 1)[-1]}",  # without ?download=1 and the like
            path=pooch.os_cache("unmix") if cache is None else cache,
        )
    )


def _resolve(source: str, sha256: str | None) -> tuple[str, str]:
    """Return address and SHA-256, or raise."""
    if source in REGISTRY and sha256 is None:
        return REGISTRY[source]
    if "://" not in source:
        msg = f"`source`={source!r} is neither an address nor one of {list(REGISTRY)} (which come with their SHA-256)."
        raise ValueError(msg)
    if sha256 is None or not re.fullmatch("[0-9a-f]{64}", sha256.lower()):
        msg = f"`sha256` must be the 64 hexadecimal digits of the file at {source}, got {sha256!r}."
        raise ValueError(msg)
    return source, sha256.lower()
