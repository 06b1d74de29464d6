"""Batches and covariates of observations as a design matrix, the same for the data fitted and for new data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from unmix._adata.read import read_labels

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Covariate:
    """A column of `obs`: indicators of its categories, or, without categories, a number less its mean over its deviation."""

    name: str
    categories: tuple[str, ...]
    mean: float = 0.0
    sd: float = 1.0

    def columns(self, adata: "AnnData") -> np.ndarray:
        """Return the columns of the design matrix, float32."""
        if self.categories:
            return np.eye(len(self.categories), dtype=np.float32)[_codes(adata, self.name, self.categories)]
        return ((_numbers(adata, self.name) - self.mean) / self.sd).astype(np.float32)[:, None]


@dataclass(frozen=True)
class Conditions:
    """What a fit is conditioned on."""

    batch_key: str | None
    batches: tuple[str, ...]
    covariates: tuple[Covariate, ...] = ()

    def design(self, adata: "AnnData", batch: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the index of the batch of every observation, and the design matrix (float32).

        Parameters
        ----------
        adata
            Observations.
        batch
            Take all of them to be of this batch.

        Raises
        ------
        KeyError
            If a column is missing.
        ValueError
            If a value is missing or unknown.
        """
        if batch is not None:
            if self.batch_key is None or batch not in self.batches:
                msg = f"`batch` {batch!r} is not among the batches of the fit, {list(filter(None, self.batches))}."
                raise ValueError(msg)
            index = np.full(adata.n_obs, self.batches.index(batch))
        elif self.batch_key is not None:
            index = _codes(adata, self.batch_key, self.batches, "batch_key")
        else:
            index = np.zeros(adata.n_obs, np.int64)
        one_hot = np.eye(len(self.batches), dtype=np.float32)[index][:, : None if self.batch_key is not None else 0]
        return index, np.column_stack([one_hot, *(c.columns(adata) for c in self.covariates)])

    def entry(self) -> dict[str, Any]:
        """Return what `uns` stores."""
        columns = {
            str(i): {"name": c.name, "categories": np.array(c.categories, dtype=str), "mean": c.mean, "sd": c.sd}
            for i, c in enumerate(self.covariates)
        }
        return {"batch_key": self.batch_key or "", "batches": np.array(self.batches, dtype=str), "covariates": columns}


def stored_conditions(entry: dict[str, Any]) -> Conditions:
    """Return the conditions that :meth:`Conditions.entry` describes.

    Raises
    ------
    ValueError
        If it describes none.
    """
    try:
        stored = entry.get("covariates", {})
        columns = [stored[str(i)] for i in range(len(stored))]
        covariates = tuple(
            Covariate(str(c["name"]), tuple(map(str, c["categories"])), float(c["mean"]), float(c["sd"]))
            for c in columns
        )
        return Conditions(str(entry["batch_key"]) or None, tuple(map(str, entry["batches"])), covariates)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        msg = "the stored batches and covariates are no longer as the tool left them; run the tool again."
        raise ValueError(msg) from error


def read_conditions(adata: "AnnData", batch_key: str | None, covariates: str | Sequence[str] | None) -> Conditions:
    """Learn batches and covariates from columns of `obs`; numbers are covariates as they are, all else categories.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If a number is missing or all values of a column are.
    """
    names = [covariates] if isinstance(covariates, str) else list(covariates or [])
    batches = (
        ("",) if batch_key is None else tuple(map(str, read_labels(adata, batch_key, name="batch_key").categories))
    )
    return Conditions(batch_key, batches, tuple(_learn(adata, name) for name in names))


def _learn(adata: "AnnData", name: str) -> Covariate:
    if name in adata.obs and pd.api.types.is_numeric_dtype(adata.obs[name]) and adata.obs[name].dtype != bool:
        values = _numbers(adata, name)
        mean, sd = float(values.mean()), float(values.std())
        return Covariate(name, (), mean, sd if sd > 1e-9 * abs(mean) else np.inf)  # nothing is learned of a constant
    return Covariate(name, tuple(map(str, read_labels(adata, name, name="covariates").categories)))


def _numbers(adata: "AnnData", name: str) -> np.ndarray:
    if name not in adata.obs:
        msg = f"the covariate {name!r} is not among the columns of `obs`: {list(map(str, adata.obs.columns))}."
        raise KeyError(msg)
    values = np.asarray(adata.obs[name], dtype=float)
    if not np.isfinite(values).all():
        msg = f"obs[{name!r}] holds missing or infinite values, which a covariate must not."
        raise ValueError(msg)
    return values


def _codes(adata: "AnnData", name: str, known: tuple[str, ...], option: str = "covariates") -> np.ndarray:
    """Return for every cell which of the known values of a column it has."""
    labels = read_labels(adata, name, name=option)
    index = pd.Index(known).get_indexer(pd.Index(np.asarray(labels, dtype=object))).astype(np.int64)
    if (index < 0).any():
        msg = f"obs[{name!r}] holds missing or unknown values in {(index < 0).sum()} rows; known are {list(known)}."
        raise ValueError(msg)
    return index
