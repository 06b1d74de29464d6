"""Non-negative factors that several modalities, or several batches, share."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata.arguments import checked
from unmix.core.joint_counts import SPECIFICITY
from unmix.core.views import LOSSES
from unmix.tl._joint_batches import joint_nmf as fit_batches
from unmix.tl._joint_views import fit_views


@checked
def joint_nmf(
    data: Any,
    n_components: int,
    *,
    batch_key: str | None = None,
    loss: Mapping[str, str] | str = "frobenius",
    weights: Mapping[str, float] | str = "balanced",
    specificity: float | None = None,
    scale: bool = True,
    measured: pd.DataFrame | str | None = None,
    align: bool = False,
    online: int = 0,
    start: AnnData | None = None,
    freeze: bool = False,
    tol: float = 1e-5,
    max_iter: int = 500,
    layer: Mapping[str, str | None] | str | None = None,
    key_added: str = "joint_nmf",
    rng: int | np.random.Generator | None = 0,
    n_jobs: int | None = None,
    copy: bool = False,
) -> Any:
    r"""Factors shared by modalities (MuData, or a dict of AnnData), or by the batches of an AnnData.

    Modalities: X_m ~ W H_m with one W and a loss for each; a cell that lacks a modality, or holds only zeros in it, is
    fitted to the others.
    Batches: X_b ~ W_b (H + V_b), where `specificity` is the price of the batch's own part V_b (integrative NMF). Give
    non-negative data of comparable depth, such as log-normalised counts, or counts with `loss="kl"`. Batches cannot be
    combined with modalities.

    Parameters
    ----------
    data
        MuData, a dict of AnnData whose cells are matched by name, or an AnnData with `batch_key`.
    n_components
        Number of factors.
    batch_key
        Column of `obs` with the batch.
    loss
        `"frobenius"` (squared error) or `"kl"` (likelihood of Poisson counts); for modalities for all or by name, and
        then the depth of a cell is taken out of its usages; for batches usages carry the depth.
    weights
        For modalities: weight of each one's loss by name, or `"balanced"`: those by which each costs the same under its
        trivial fit (zero; for counts, cells and features independent).
    specificity
        For batches: weight of `||W_b V_b||^2`, 5 by default; with `loss="kl"` of the counts that W_b V_b explains, 1/3
        by default: a gene has a part of its own where one of two batches has more than twice the other's.
    scale
        For batches with squared error: divide each gene by its root mean square in the batch.
    measured
        For batches: which genes each measured, as a table genes x batches or the name of one in `varm`; `"nonzero"`: a
        gene without any count in a batch was not measured there, as after an outer join; `"all"`: all were. `None`: all,
        with a warning where many genes are silent in one batch alone. A gene that one batch alone measured has loadings
        of that batch's own only (UINMF).
    align
        For batches: also write usages whose quantiles are those of the largest batch.
    online
        For batches with squared error: in how many passes, the first, loadings are improved after every block of rows;
        for data on disk.
    start
        For batches: an AnnData with an earlier fit of the same name, whose loadings are the start. Batches that it
        does not know are added.
    freeze
        Whether the loadings of `start` stay as they are, so that usages remain comparable with the earlier ones.
    tol
        Stop where the loss falls by less than this fraction of itself per iteration.
    max_iter
        Largest number of iterations.
    layer
        Layer with the matrix, for all or by modality; `None` for `X`.
    key_added
        Name of the slots.
    rng
        Seed.
    n_jobs
        Threads; `None` for the setting. The result does not depend on it.
    copy
        Whether to return a copy instead of writing to `data`.

    Returns
    -------
    `None`, or with `copy=True` the copy. Sets the following fields, for modalities in every AnnData (and `obsm` of the
    MuData), in all of them or in none:

    `obsm["X_" + key_added]` : float32, n_obs x k
        Usages, of mean 1 unless there is a `start`.
    `obsm["X_" + key_added + "_aligned"]` : float32, n_obs x k
        With `align`: usages on the scale of the largest batch.
    `varm[key_added]` : n_vars x k
        Loadings: those shared, or those of the modality.
    `varm[key_added + "_specific"]` : n_vars x (k * number of batches)
        For batches: the loadings of each batch's own, side by side in the order of `uns[key]["batches"]`.
    `uns[key_added]` : dict
        `loss`, `n_iter`, `converged`, `params`; for modalities `weights`, `losses`, `depth`, the `sums` of the loadings over
        all features, and `loadings`, those by which :func:`unmix.tl.transform` predicts the others (features x k, fitted to
        usages as cells without the others have them); for batches `batches`, `scales` (batches
        x genes, these in `var_names`), and `mean_usage` (batches x k).

    Raises
    ------
    TypeError
        If `data` is of another kind.
    KeyError
        If `layer`, `batch_key`, `measured` or the fit in `start` does not exist, or `layer` names an unknown modality.
    ValueError
        If values are negative or not finite, labels are missing, no cell is shared, or options do not go together.

    Warns
    -----
    ConvergenceWarning
        If the limit of iterations is reached first.
    MeasuredWarning
        If, without `measured`, more than 1% of the genes expected in 30 cells of a batch are found in none of them.
    OutweighedWarning
        If under squared error one cell in a hundred, or fewer, holds most of the sum of squares.

    References
    ----------
    Zhang et al. (2012), Nucleic Acids Res. 40, 9379. Welch et al. (2019), Cell 177, 1873. Gao et al. (2021), Nat.
    Biotechnol. 39, 1000. Kriebel, Welch (2022), Nat. Commun. 13, 780.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> reference.obs["half"] = ["a", "b"] * (reference.n_obs // 2) + ["a"] * (reference.n_obs % 2)
    >>> um.tl.joint_nmf(reference, 5, batch_key="half", tol=1e-3)
    >>> reference.varm["joint_nmf_specific"].shape[1]
    10
    """
    if isinstance(n_components, bool) or not isinstance(n_components, int | np.integer) or n_components < 1:
        msg = f"`n_components` must be an integer >= 1, got {n_components!r}."
        raise ValueError(msg)
    common: dict[str, Any] = {"tol": tol, "max_iter": max_iter, "layer": layer, "key_added": key_added}
    common |= {"rng": rng, "n_jobs": n_jobs, "copy": copy}
    batches: dict[str, Any] = {"measured": measured, "align": align, "online": online, "start": start, "freeze": freeze}
    if batch_key is None:
        refuse("need `batch_key`", batches | {"specificity": specificity, "scale": not scale})
        return fit_views(data, n_components, loss=loss, weights=weights, **common)
    if not isinstance(data, AnnData):
        msg = (
            f"`batch_key` needs one AnnData, got {type(data).__name__}: batches and modalities cannot be combined. Fit the "
            "modalities without `batch_key`, or each modality with it."
        )
        raise TypeError(msg)
    if loss not in LOSSES:
        msg = f"`loss` of batches must be one of {list(LOSSES)}, got {loss!r}."
        raise ValueError(msg)
    if loss == "kl":
        refuse('needs loss="frobenius"', {"online": online})
    refuse(
        "are for modalities, not for batches",
        {"weights": weights != "balanced", "layer": isinstance(layer, Mapping)},
    )
    if specificity is None:
        specificity = SPECIFICITY if loss == "kl" else 5.0
    batches |= {"batch_key": batch_key, "loss": loss, "specificity": specificity, "scale": scale}
    return fit_batches(data, n_components, **batches, **common)


def refuse(reason: str, given: Mapping[str, Any]) -> None:
    """Refuse options that do not go with the others."""
    wrong = [
        f"`{name}`"
        for name, value in given.items()
        if value is not None and not (isinstance(value, bool | int) and not value)
    ]
    if wrong:
        msg = f"{', '.join(wrong)} {reason}."
        raise ValueError(msg)
