"""Where the observations lie: on the tissue with its image, on an embedding, or nowhere."""

from anndata import AnnData

from unmix._report.place import Place, encoded_image
from unmix._report.sections import side_by_side
from unmix.pl._tissue import tissues

BASES = ("spatial", "X_umap", "X_tsne")
"""Where coordinates are looked for, in this order."""


def find_place(adata: AnnData, basis: str | None, library_key: str | None = None) -> Place | None:
    """Return the coordinates under `basis`, or the first that there are; sections side by side, where they are told apart.

    Raises
    ------
    KeyError
        If `basis` or `library_key` is given and does not exist.
    ValueError
        If it holds no two finite numbers for every observation, or sections are asked for and there are no coordinates.
    """
    found = basis if basis is not None else next((name for name in BASES if name in adata.obsm), None)
    if found is None:
        if library_key is not None:
            msg = f"`library_key` is for maps, and obsm holds no coordinates: neither {', '.join(BASES[:-1])} nor {BASES[-1]}."
            raise ValueError(msg)
        return None
    places = tissues(adata, found, library_key=library_key)
    if library_key is not None:
        return side_by_side(places, adata.n_obs)
    here = places[0]
    images = [] if here.image is None else [encoded_image(*here.image)]
    return Place(found, here.xy, here.diameter, upside_down=found == "spatial", images=images)
