"""Pictures of metagenes: the consensus of the runs, and the genes that mark every program."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.stored import stored_entry
from unmix.get._loadings import loadings as get_loadings
from unmix.pl._canvas import COLOURS, finish

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def consensus(
    adata: AnnData, *, key: str = "metagenes", show: bool | None = None, save: str | Path | None = None
) -> "list[Axes]":
    """Draw how often the runs put two cells into the same program, beside the program that each cell uses most.

    Parameters
    ----------
    adata
        Object that :func:`unmix.tl.metagenes` has written to.
    key
        The tool's `key_added`.
    show
        Whether to show the figure; `None` shows it in interactive sessions, unless it is saved.
    save
        File to save the figure to.

    Returns
    -------
    The axes of the programs and of the consensus matrix.

    Raises
    ------
    KeyError
        If there is no such result, or its cells are not in `adata`.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> um.tl.metagenes(reference, 5, n_runs=5, n_top_genes=200, max_distance=2.0)
    >>> len(um.pl.consensus(reference, show=False))
    2
    """
    from matplotlib import pyplot as plt
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    stored = stored_entry(adata, key, "metagenes")["consensus"]
    rows = adata.obs_names.get_indexer(stored["names"])
    if (rows < 0).any():
        msg = f"{int((rows < 0).sum())} cells of the consensus under {key!r} are not in this AnnData."
        raise KeyError(msg)
    usages = np.nan_to_num(np.asarray(adata.obsm[keys.EMBEDDING + key])[rows])
    program, k = usages.argmax(axis=1), usages.shape[1]
    colours = [COLOURS[c % len(COLOURS)] for c in range(k)]
    figure, (side, ax) = plt.subplots(
        1, 2, figsize=(6.6, 5.0), width_ratios=[1, 18], layout="constrained", gridspec_kw={"wspace": 0.02}
    )
    side.imshow(program[:, None], aspect="auto", cmap=ListedColormap(colours), vmin=-0.5, vmax=k - 0.5)
    image = ax.imshow(stored["matrix"], aspect="auto", cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    for a in (side, ax):
        a.set_xticks([])
        a.set_yticks([])
    ax.set_title(f"{key}: {len(rows)} cells", fontsize=10)
    figure.colorbar(image, ax=ax, label="share of runs together", shrink=0.6)
    patches = [Patch(color=colours[c], label=str(c + 1)) for c in range(k)]
    figure.legend(handles=patches, title="program", loc="outside lower center", ncols=min(k, 10), fontsize=8)
    finish([side, ax], show=show, save=save)
    return [side, ax]


def top_genes(
    adata: AnnData, *, key: str = "metagenes", n_top: int = 5, show: bool | None = None, save: str | Path | None = None
) -> "list[Axes]":
    """Draw the leading genes of every component across all components.

    Genes are ranked by score where the tool stores one; each gene's row is divided by its largest absolute value.

    Parameters
    ----------
    adata
        Object that :func:`unmix.tl.metagenes`, :func:`unmix.tl.factorize` or :func:`unmix.tl.joint_nmf` has written to.
    key
        The tool's `key_added`.
    n_top
        Number of genes per component; a gene that leads several stands with the first.
    show
        Whether to show the figure; `None` shows it in interactive sessions, unless it is saved.
    save
        File to save the figure to.

    Returns
    -------
    The axes, as a list of one.

    Raises
    ------
    KeyError
        If there is no such result.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> um.tl.factorize(reference, 3)
    >>> axes = um.pl.top_genes(reference, key="nmf", n_top=2, show=False)
    >>> len(axes[0].get_yticklabels()) <= 6
    True
    """
    from matplotlib import pyplot as plt

    genes = list(dict.fromkeys(get_loadings(adata, key=key, n_top=n_top)["gene"]))
    values = np.asarray(adata.varm[key + keys.SCORE if key + keys.SCORE in adata.varm else key])
    table = pd.DataFrame(values, index=adata.var_names).loc[genes]
    size = table.abs().max(axis=1).to_numpy()
    table = table.div(np.where(size > 0, size, 1), axis=0)
    figure, ax = plt.subplots(figsize=(1.8 + 0.4 * table.shape[1], 0.9 + 0.17 * len(genes)), layout="constrained")
    signed = bool((table < 0).any(axis=None))
    limits = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1} if signed else {"cmap": "viridis", "vmin": 0, "vmax": 1}
    image = ax.imshow(table, aspect="auto", interpolation="nearest", **limits)  # type: ignore[arg-type]
    ax.set_yticks(np.arange(len(genes)), genes, fontsize=7)
    ax.set_xticks(np.arange(table.shape[1]), [str(c + 1) for c in range(table.shape[1])], fontsize=8)
    ax.set_xlabel("component", fontsize=8)
    figure.colorbar(image, ax=ax, shrink=0.5, label="relative to the gene's largest")
    finish([ax], show=show, save=save)
    return [ax]
