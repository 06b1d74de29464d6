"""`unmix demo`: the main job on embedded real cells."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from unmix.cli._files import replacing, write_table

if TYPE_CHECKING:
    import pandas as pd


def demo(*, out: Path = Path("demo")) -> None:
    """Deconvolve spots pooled from real blood cells with known truth; write a table and a picture.

    Parameters
    ----------
    out
        Folder for `proportions.csv` and `proportions.png`; made if it is missing, its files are replaced.
    """
    import matplotlib as mpl

    from unmix import datasets, get, metrics, pl, tl

    mpl.use("agg")
    out.mkdir(parents=True, exist_ok=True)
    spots, reference = datasets.pbmc_spots()
    tl.deconvolve(spots, reference, groupby="cell_type")
    table = get.proportions(spots)
    write_table(table, out / "proportions.csv")
    with replacing(out / "proportions.png") as temporary:
        pl.proportions(spots, show=False, save=temporary)
    truth = spots.obsm["truth_proportions"]
    guess = table.copy()
    guess[:] = reference.obs["cell_type"].value_counts(normalize=True).reindex(guess.columns).to_numpy()[None, :]
    lines = [
        f"{spots.n_obs} spots, {reference.n_obs} reference cells, {table.shape[1]} cell types",
        "",
        table.head(8).round(3).to_string(),
        "",
        _scores("unmix.tl.deconvolve", metrics.evaluate(table, truth)),
        _scores("the reference's mean", metrics.evaluate(guess, truth)),
        "",
        f"wrote {out / 'proportions.csv'} and {out / 'proportions.png'}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _scores(name: str, summary: "pd.Series") -> str:
    return f"{name:<22} RMSE {summary['rmse']:.4f}   Pearson {summary['pearson']:.3f}"
