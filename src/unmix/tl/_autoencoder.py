"""Autoencoders of counts."""

from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.read import check_expression, read_labels, read_matrix, summarise_rows
from unmix._adata.tool import tool
from unmix._adata.write import Slots
from unmix._settings import logger, settings

Likelihood = Literal["auto", "zinb", "nb", "poisson", "gaussian"]
Dispersion = Literal["gene", "gene-cell", "gene-batch", "shared"]
CHOICES = {
    "kind": ("ae", "vae"),
    "likelihood": ("auto", "zinb", "nb", "poisson", "gaussian"),
    "dispersion": ("gene", "gene-cell", "gene-batch", "shared"),
    "dropout": ("gene-cell", "elementwise"),
    "on_interrupt": ("raise", "keep"),
    "device": ("auto", "cpu", "cuda"),
}
SHORT_RUN = 5
"""Epochs after which `likelihood="auto"` compares."""


@tool
def autoencoder(
    adata: AnnData,
    n_latent: int = 32,
    *,
    kind: Literal["ae", "vae"] = "ae",
    likelihood: Likelihood = "auto",
    dispersion: Dispersion = "gene",
    dropout: Literal["gene-cell", "elementwise"] = "gene-cell",
    ridge: float = 0.0,
    hidden: tuple[int, ...] = (64,),
    batch_key: str | None = None,
    layer: str | None = None,
    max_epochs: int | Literal["auto"] = "auto",
    batch_size: int = 128,
    learning_rate: float = 4e-3,
    denoise: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    on_interrupt: Literal["raise", "keep"] = "raise",
    resume: bool = False,
    key_added: str | None = None,
    rng: int | np.random.Generator | None = 0,
    n_jobs: int | None = None,
    copy: bool = False,
) -> Slots:
    r"""Compress counts to a few coordinates with a neural network that rebuilds them: Z = E(X), X = D(Z).

    The decoder gives every count the parameters of a distribution, and training maximises its likelihood on the counts
    as they are; depth enters as the cell's total. The epoch that predicts a held-out tenth of the cells best is kept.

    Parameters
    ----------
    adata
        Counts.
    n_latent
        Number of coordinates.
    kind
        `"ae"`: a plain autoencoder. `"vae"`: a variational one, whose coordinates are means of a posterior.
    likelihood
        Of the counts; `"auto"` trains NB and ZINB for a few epochs and goes on with the one that predicts held-out
        cells better. `"gaussian"` takes any real values.
    dispersion
        What the dispersion depends on.
    dropout
        For ZINB, the logit of dropout: an output of the network, or `"elementwise"` a line in the log mean per gene.
    ridge
        Weight of the squared dropout probabilities in the loss.
    hidden
        Widths of the encoder's hidden layers; the decoder mirrors them.
    batch_key
        Column of `obs` with the batch, on which encoder and decoder are conditioned.
    layer
        Layer with the counts; `None` for `X`.
    max_epochs
        Most epochs; `"auto"` for enough to see 2,000,000 cells, 5 to 200. Training stops by itself when the
        held-out loss has settled.
    batch_size
        Cells per step.
    learning_rate
        Of Adam; falls to a third whenever the held-out loss has not improved for three epochs.
    denoise
        Whether to write the decoder's means.
    device
        Where to train.
    on_interrupt
        `"keep"` writes the best epoch so far when interrupted, with what `resume` needs; `"raise"`
        leaves `adata` as it was.
    resume
        Whether to go on with the interrupted training stored under the same key.
    key_added
        Name of the slots; `None` for `kind`.
    rng
        Seed.
    n_jobs
        Threads; `None` for the setting. The result does not depend on it.
    copy
        Whether to return a copy instead of writing to `adata`.

    Returns
    -------
    `None`, or with `copy=True` the copy. Sets the following fields:

    `obsm["X_" + key_added]` : float32, n_obs x n_latent
        Coordinates; NaN in cells without counts.
    `var[key_added + "_dispersion"]` : float
        Inverse dispersion theta, where it is one number per gene; NaN for genes without counts.
    `obs[key_added + "_nll"]` : float
        Negative log-likelihood of the cell, in nats.
    `layers[key_added + "_denoised"]` : float32
        With `denoise`: means of the decoder at the cell's own total.
    `uns[key_added]` : dict
        `history`, `design`, `weights`, `genes`, `chosen` (held-out losses of the likelihoods
        compared), `n_empty`, `params`.

    Raises
    ------
    KeyError
        If `layer` or `batch_key` does not exist, or there is nothing to resume.
    ValueError
        If the matrix holds no counts or an option is unknown.

    References
    ----------
    Eraslan et al. 2019, Nature Communications 10, 390. Lopez et al. 2018, Nature Methods 15, 1053.

    Examples
    --------
    >>> import unmix as um
    >>> _, cells = um.datasets.pbmc_spots()
    >>> um.tl.autoencoder(cells, 5, likelihood="nb", max_epochs=2)
    >>> cells.obsm["X_ae"].shape[1]
    5
    """
    given = {"kind": kind, "likelihood": likelihood, "dispersion": dispersion, "dropout": dropout}
    check_options({**given, "on_interrupt": on_interrupt, "device": device})
    check_numbers(n_latent=n_latent, batch_size=batch_size, max_epochs=1 if max_epochs == "auto" else max_epochs)
    from unmix.core.autoencoder import Options

    threads, key = settings.threads(n_jobs), key_added or kind
    rows, categories = read_rows(adata, layer, batch_key, likelihood, threads)
    options = Options(
        max_epochs=None if max_epochs == "auto" else max_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        device=device,
        on_interrupt=on_interrupt,
    )
    shape = {**given, "n_latent": n_latent, "hidden": tuple(hidden), "ridge": ridge}
    fitted, chosen = _train(
        adata, rows, shape, options, len(categories), seed_of(rng), threads, key if resume else None
    )
    return slots_of(adata, rows, fitted, chosen, key, categories, denoise=denoise, threads=threads)


def check_options(given: dict[str, str]) -> None:
    """Raise ValueError for an option that is not among its choices."""
    for name, value in given.items():
        if value not in CHOICES[name]:
            msg = f"`{name}` must be one of {list(CHOICES[name])}, got {value!r}."
            raise ValueError(msg)


def check_numbers(**given: Any) -> None:
    """Raise ValueError for what must be a whole number of at least 1."""
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            msg = f"`{name}` must be a whole number of at least 1, got {value!r}."
            raise ValueError(msg)


def seed_of(rng: int | np.random.Generator | None) -> int:
    """Return one integer seed."""
    return int(rng) if isinstance(rng, int | np.integer) else int(np.random.default_rng(rng).integers(2**31))


def read_rows(
    adata: AnnData,
    layer: str | None,
    batch_key: str | None,
    likelihood: str,
    threads: int,
    known: list[str] | None = None,
) -> tuple[Any, list[str]]:
    """Return the rows, and the names of the batches; `known` are those of the fit."""
    from unmix.core.training import Rows

    matrix = read_matrix(adata, layer)
    summary = summarise_rows(matrix, n_jobs=threads)
    counts = likelihood != "gaussian"
    if counts or not summary.finite:
        check_expression(matrix, summary, expect_counts=counts)
    batch, codes, categories = np.zeros(adata.n_obs, np.int64), np.zeros((adata.n_obs, 0), np.float32), known or [""]
    if batch_key is not None:
        labels = read_labels(adata, batch_key)
        categories = known or [str(c) for c in labels.categories]
        batch = pd.Index(categories).get_indexer(pd.Index(np.asarray(labels, dtype=object))).astype(np.int64)
        if (batch < 0).any():
            msg = f"obs[{batch_key!r}] holds missing or unknown batches; known are {categories}."
            raise ValueError(msg)
        codes = np.eye(len(categories), dtype=np.float32)[batch]
    return Rows(matrix.X, summary.totals, batch, codes, counts), categories


def _train(
    adata: AnnData,
    rows: Any,
    shape: dict[str, Any],
    options: Any,
    n_batches: int,
    seed: int,
    threads: int,
    resume: str | None,
) -> tuple[Any, dict[str, float]]:
    """Fit, after choosing between NB and ZINB by a short run of each where asked."""
    from dataclasses import replace

    from unmix.core.autoencoder import fit
    from unmix.core.networks import Design

    design = Design(rows.X.shape[1], n_batches=n_batches, n_codes=rows.codes.shape[1], **shape)
    if resume is not None:
        stored, state = load_state(adata, resume)
        return fit(rows, stored, options, n_jobs=threads, state=state), {}
    if design.likelihood != "auto":
        return fit(rows, design, options, seed=seed, n_jobs=threads), {}
    short = replace(options, max_epochs=min(SHORT_RUN, options.max_epochs or SHORT_RUN), on_interrupt="raise")
    fits = {
        name: fit(rows, replace(design, likelihood=name), short, seed=seed, n_jobs=threads) for name in ("nb", "zinb")
    }
    losses = {name: float(f.state.best_loss) for name, f in fits.items()}
    best = min(losses, key=losses.__getitem__)
    logger.info("autoencoder: held-out loss per cell %s; going on with %s", losses, best)
    return fit(rows, fits[best].design, options, n_jobs=threads, state=fits[best].state), losses


def slots_of(
    adata: AnnData,
    rows: Any,
    fitted: Any,
    chosen: dict[str, float],
    key: str,
    categories: list[str],
    *,
    denoise: bool,
    threads: int,
) -> Slots:
    """Return everything that is written."""
    from unmix.core.autoencoder import denoise as decoder_means
    from unmix.core.autoencoder import project

    projection = project(fitted, rows, n_jobs=threads)
    entry: dict[str, Any] = {
        "history": {name: np.array(values) for name, values in fitted.history.items()},
        "best_epoch": fitted.state.best_epoch,
        "design": {**asdict(fitted.design), "hidden": np.array(fitted.design.hidden)},
        "weights": fitted.weights,
        "moments": asdict(fitted.genes),
        "genes": np.array(adata.var_names, dtype=str),
        "batches": np.array(categories, dtype=str),
        "chosen": chosen,
        "n_empty": int((~rows.used).sum()),
        "finished": fitted.finished,
    }
    if not fitted.finished:
        entry["state"] = asdict(fitted.state)
    slots = Slots(
        uns={key: entry}, obsm={keys.EMBEDDING + key: projection.latent}, obs={key + keys.NLL: projection.nll}
    )
    if fitted.design.kind == "vae":
        slots.obsm[keys.EMBEDDING + key + keys.VARIANCE] = projection.variance
    if fitted.design.dispersion == "gene" and fitted.design.likelihood != "poisson":
        theta = np.exp(fitted.weights["log_dispersion"][0].astype(float))
        slots.var[key + keys.DISPERSION] = np.where(fitted.genes.mean > 0, theta, np.nan)
    if denoise:
        slots.layers[key + keys.DENOISED] = decoder_means(fitted, rows, n_jobs=threads)
    return slots


def load_fit(adata: AnnData, key: str) -> Any:
    """Return the fitted autoencoder that is stored under a key."""
    from unmix.core.autoencoder import Fit, State
    from unmix.core.networks import Design
    from unmix.core.training import Genes

    entry = adata.uns[key]
    plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in entry["design"].items() if k != "hidden"}
    design = Design(hidden=tuple(int(h) for h in entry["design"]["hidden"]), **plain)
    m = entry["moments"]
    genes = Genes(m["mean"], m["variance"], float(m["inverse_size"]), m["input_sd"], float(m["median_total"]))
    weights = {name: np.asarray(value) for name, value in entry["weights"].items()}
    return Fit(design, genes, weights, State(), np.zeros(0, np.int64), bool(entry["finished"]))


def load_state(adata: AnnData, key: str) -> tuple[Any, Any]:
    """Return the design and the state of an interrupted training.

    Raises
    ------
    KeyError
        If there is none.
    """
    from unmix.core.autoencoder import State

    entry = adata.uns.get(key, {})
    if "state" not in entry:
        msg = f"no interrupted training is stored in uns[{key!r}]."
        raise KeyError(msg)
    stored = dict(entry["state"])
    stored["history"] = {name: [float(v) for v in values] for name, values in stored["history"].items()}
    numbers = {k: int(stored[k]) for k in ("epoch", "best_epoch", "waited", "returns", "seed")}
    return load_fit(adata, key).design, State(**{**stored, **numbers, "best_loss": float(stored["best_loss"])})


def project_autoencoder(
    adata: AnnData, fitted: AnnData, key: str, layer: str | None, threads: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Encode new cells; genes are matched by name, all genes of the fit are needed.

    Raises
    ------
    ValueError
        If genes of the fit are missing.
    """
    from unmix.core.autoencoder import project

    entry = fitted.uns[key]
    columns = pd.Index(adata.var_names).get_indexer(pd.Index(entry["genes"]))
    if (columns < 0).any():
        missing = entry["genes"][columns < 0]
        msg = f"{len(missing)} of {len(columns)} genes of the fit are missing, such as {missing[:3].tolist()}."
        raise ValueError(msg)
    fit = load_fit(fitted, key)
    same = len(columns) == adata.n_vars and (columns == np.arange(adata.n_vars)).all()
    batch_key = entry["params"].get("batch_key")
    view = adata if same else adata[:, columns]
    rows, _ = read_rows(view, layer, batch_key, fit.design.likelihood, threads, list(map(str, entry["batches"])))
    return project(fit, rows, n_jobs=threads).latent, {"n_shared_genes": len(columns)}
