"""`unmix demo`: the main job on embedded real cells."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from unmix.cli._files import picture, table, write_outputs

if TYPE_CHECKING:
    import pandas as pd


def demo(*, out: Path = Path("demo")) -> None:
    """Deconvolve spots pooled from real blood cells with known truth; write a table and a picture.

    Parameters
    ----------
    out
        Folder for `proportions.csv` and `proportions.png`; made if it is missing, its files are replaced.
    """
    from unmix import datasets, get, metrics, pl, tl

    out.mkdir(parents=True, exist_ok=True)
    spots, reference = datasets.pbmc_spots()
    tl.deconvolve(spots, reference, groupby="cell_type")
    shares = get.proportions(spots)
    outputs = [(out / "proportions.csv", table(shares)), (out / "proportions.png", picture(pl.proportions, spots))]
    truth = spots.obsm["truth_proportions"]
    guess = shares.copy()
    guess[:] = reference.obs["cell_type"].value_counts(normalize=True).reindex(guess.columns).to_numpy()[None, :]
    lines = [
        f"{spots.n_obs} spots, {reference.n_obs} reference cells, {shares.shape[1]} cell types",
        "",
        shares.head(8).round(3).to_string(),
        "",
        _scores("unmix.tl.deconvolve", metrics.evaluate(shares, truth)),
        _scores("the reference's mean", metrics.evaluate(guess, truth)),
        "",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    write_outputs(outputs)


def _scores(name: str, summary: "pd.Series") -> str:
    return f"{name:<22} RMSE {summary['rmse']:.4f}   Pearson {summary['pearson']:.3f}"
