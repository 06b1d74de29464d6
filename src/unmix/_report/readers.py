"""Which results an object holds, and who reads each."""

from collections.abc import Callable, Sequence

from anndata import AnnData

from unmix._adata.stored import LOST, lost_results
from unmix._report.archetypes import read_archetypes
from unmix._report.autoencoder import read_autoencoder
from unmix._report.content import Result
from unmix._report.deconvolve import read_deconvolve
from unmix._report.factors import read_factorize, read_joint_nmf, read_metagenes, read_transform
from unmix.get import results as stored_results

Reader = Callable[[AnnData, str], list[Result]]

READERS: dict[str, Reader] = {
    "deconvolve": read_deconvolve,
    "starfysh_archetypes": read_archetypes,
    "factorize": read_factorize,
    "metagenes": read_metagenes,
    "joint_nmf": read_joint_nmf,
    "autoencoder": read_autoencoder,
    "zinb_ae": read_autoencoder,
    "transform": read_transform,
}
"""By tool, in the order of the report."""


def read_results(adata: AnnData, keys: Sequence[str] | None) -> list[Result]:
    """Return what the report shows, of all results or of those under `keys`.

    Raises
    ------
    KeyError
        If a key holds no result that can be shown, or there is none at all.
    ValueError
        If a result is not as its tool has left it.
    """
    stored = stored_results(adata)["tool"]
    shown = {str(key): str(tool) for key, tool in stored.items() if tool in READERS}
    wanted = sorted(shown, key=lambda key: list(READERS).index(shown[key])) if keys is None else list(keys)
    unknown = [key for key in wanted if key not in shown]
    if unknown or not wanted:
        what = f"no result under {unknown}" if unknown else "no result of unmix to show"
        have = f"there are {list(shown)}" if shown else "run `unmix.tl.deconvolve` or another tool first"
        lost = lost_results(adata)
        if lost and (keys is None or set(unknown) & set(lost)):
            have = f"there are tables of {lost}. {LOST.removesuffix('.')}"
        msg = f"{what}; {have}."
        raise KeyError(msg)
    return [result for key in wanted for result in _read(adata, key, shown[key])]


def _read(adata: AnnData, key: str, tool: str) -> list[Result]:
    """Read one result; whatever is raised by one that was changed since becomes an error that names it."""
    try:
        return READERS[tool](adata, key)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        told = error.args[0] if isinstance(error, KeyError) and error.args else error
        msg = f"the result {key!r} is not as `tl.{tool}` has left it: {told}"
        raise (KeyError if isinstance(error, KeyError) else ValueError)(msg) from error
