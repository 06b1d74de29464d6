"""`unmix joint-nmf`: files of modalities, or one file with batches, to an object with shared factors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from unmix._adata.h5ad import write_h5ad, write_h5mu
from unmix.cli._files import FileProblem, check_endings, check_outputs, read_data, table, write_outputs
from unmix.cli._modalities import SUFFIX, imported_mudata, read_mudata


def joint_nmf(
    data: list[Path],
    *,
    n_components: int,
    out: Path,
    batch_key: str | None = None,
    loadings: Path | None = None,
    loss: list[Literal["frobenius", "kl"]] | None = None,
    weights: list[float] | None = None,
    specificity: float | None = None,
    scale: bool = True,
    measured: Literal["nonzero", "all"] | None = None,
    align: bool = False,
    online: int = 0,
    start: Path | None = None,
    freeze: bool = False,
    tol: float = 1e-5,
    max_iter: int = 500,
    layer: str | None = None,
    key_added: str = "joint_nmf",
    rng: int = 0,
    n_jobs: int | None = None,
    force: bool = False,
) -> None:
    """Factors that modalities of the same cells, or batches, share.

    Parameters
    ----------
    data
        With --batch-key one file of cells; otherwise one file for each modality, named by its stem, or one .h5mu.
        Files are .h5ad, .zarr, a 10x .h5 or a 10x mtx folder.
    n_components
        Number of factors.
    out
        Object with the results to write: .h5ad for batches, .h5mu for modalities.
    batch_key
        Column of the observations with the batch.
    loadings
        Table of genes and loadings to write: .csv, .tsv or .parquet; for batches genes x shared factors, for modalities
        with one row per modality, component and feature.
    loss
        Squared error, or the likelihood of counts; once for all, or, for modalities, once for each file.
    weights
        For modalities: weight of the loss of each file; balanced by default.
    specificity
        For batches: price of a batch's own part, 5 for squared error and 1/3 for counts by default.
    scale
        For batches with squared error: divide each gene by its root mean square in the batch.
    measured
        For batches: "nonzero" where a gene without any count in a batch was not measured there, "all" where it was.
    align
        For batches: also write usages with the quantiles of the largest batch.
    online
        For batches with squared error: number of first passes that improve the loadings after every block of rows.
    start
        For batches: a file with an earlier fit to start from.
    freeze
        Keep the loadings of `start` as they are.
    tol
        Relative fall of the loss per iteration at which to stop.
    max_iter
        Largest number of iterations.
    layer
        Layer with the matrix.
    key_added
        Name of the results.
    rng
        Seed.
    n_jobs
        Threads.
    force
        Replace files that exist.
    """
    check_outputs([out, loadings], force=force)
    check_endings(tables=[loadings])
    check_kinds(data, batch_key, out)
    if batch_key is not None and loss is not None and len(loss) > 1:
        msg = f"batches have one --loss, got {loss}."
        raise FileProblem(msg)
    from unmix import get, tl

    options: dict[str, Any] = {"tol": tol, "max_iter": max_iter, "layer": layer, "key_added": key_added}
    options |= {"rng": rng, "n_jobs": n_jobs, "measured": measured, "align": align, "online": online, "freeze": freeze}
    options |= {"batch_key": batch_key, "start": None if start is None else read_data(start)}
    options |= {"specificity": specificity, "scale": scale}
    if batch_key is not None:
        fitted: Any = read_data(data[0])
        options |= {"loss": loss[0] if loss else "frobenius", "weights": weights or "balanced"}
        tl.joint_nmf(fitted, n_components, **options)
        leading = get.loadings(fitted, key=key_added)
    else:
        fitted = read_modalities(data)
        names = list(fitted.mod)
        options |= {"loss": each(loss, names) or "frobenius", "weights": each(weights, names) or "balanced"}
        tl.joint_nmf(fitted, n_components, **options)
        leading = get.joint_loadings(fitted, key=key_added)
    write_outputs([(out, write_object(fitted)), (loadings, table(leading))])


def check_kinds(data: list[Path], batch_key: str | None, out: Path) -> None:
    """Refuse numbers and kinds of files that do not go together.

    Raises
    ------
    FileProblem
        If they do not.
    """
    modalities = batch_key is None
    if not modalities and len(data) != 1:
        msg = f"--batch-key needs one file with all batches, got {len(data)}."
        raise FileProblem(msg)
    if modalities and len(data) == 1 and data[0].suffix != SUFFIX:
        msg = f"{data[0]}: give --batch-key, or a file for each modality, or one .h5mu."
        raise FileProblem(msg)
    if len({path.stem for path in data}) < len(data):
        msg = f"the files name the modalities by their stems, which must differ: {[path.stem for path in data]}."
        raise FileProblem(msg)
    kind, suffix = ("modalities", SUFFIX) if modalities else ("batches", ".h5ad")
    if out.suffix != suffix:
        msg = f"{out}: the results of {kind} are written as {suffix}."
        raise FileProblem(msg)


def read_modalities(data: list[Path]) -> Any:
    """Read a MuData, or make one of a file for each modality.

    Raises
    ------
    FileProblem
        If a file cannot be read, or `mudata` is not installed.
    """
    if data[0].suffix == SUFFIX:
        return read_mudata(data[0])
    mudata, parts = imported_mudata(), {path.stem: read_data(path) for path in data}
    with mudata.set_options(pull_on_update=False):
        return mudata.MuData(parts)


def each(values: list[Any] | None, names: list[str]) -> Any:
    """Return what was given once for all, or by the name of the modality.

    Raises
    ------
    FileProblem
        If it was given neither once nor for each file.
    """
    if not values or (len(values) == 1 and isinstance(values[0], str)):
        return values[0] if values else None
    if len(values) != len(names):
        msg = f"--loss and --weights are given once for each of {names}, got {values}."
        raise FileProblem(msg)
    return dict(zip(names, values, strict=True))


def write_object(fitted: Any) -> Callable[[Path], Any]:
    """Return what writes a MuData or an AnnData."""

    def write(path: Path) -> None:
        if path.suffix == SUFFIX:
            write_h5mu(fitted, path)
        else:
            write_h5ad(fitted, path)

    return write
