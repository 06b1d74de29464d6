"""How close estimated proportions are to a truth table: per type, per spot, and in one summary.

Every function takes an estimate and a truth, both of shape (n_obs, n_types), as DataFrames or arrays, and brings them
together by the same rules:

- two DataFrames are aligned by the names of their rows and columns; `/` and `_` are the same in a type's name, because
  a type with a `/` cannot be a column on disk;
- with an array on either side, rows and columns correspond by position;
- a type that one side does not have counts as 0 there: an estimate that leaves a type out is wrong by all of it;
- a row with a NaN on either side (a spot that could not be fitted), or without anything in the truth, is left out and
  counted in `n_excluded`.
"""

import warnings
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from unmix._adata.arguments import checked
from unmix._adata.keys import column_names
from unmix.core.agreement import aupr, concordance, entropy_bits, pearson, rmse, to_sum_one

if TYPE_CHECKING:
    import pandas as pd

Table: TypeAlias = "pd.DataFrame | np.ndarray"
"""Observations x types, by name or by position."""

LARGEST = 1e15
"""Values beyond this are no proportions, numbers of cells or scores."""

FURTHEST = 3.0
"""Rows whose sums are further apart than so many times are in different units."""


class UnitsWarning(UserWarning):
    """An estimate and a truth are in different units."""


__all__ = ["align", "coverage", "evaluate", "jensen_shannon", "per_type"]


@checked
def align(estimated: Table, truth: Table) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Bring an estimate and a truth to the same rows and types.

    Parameters
    ----------
    estimated
        Estimated proportions, n_obs x types.
    truth
        True proportions, n_obs x types.

    Returns
    -------
    Both tables with the rows of `estimated` and the types of both, those of `truth` first; a type that a table did not
    have is 0 in it, and where only the spelling differs the names are those of `estimated`.
    Rows with NaN are kept.

    Raises
    ------
    ValueError
        If the rows or, by position, the columns do not correspond, no type is in both, or a name is there twice.

    Examples
    --------
    >>> import pandas as pd
    >>> estimated = pd.DataFrame({"B": [0.2], "T": [0.8]})
    >>> truth = pd.DataFrame({"T": [0.7], "NK": [0.3]})
    >>> align(estimated, truth)[1]
         T   NK    B
    0  0.7  0.3  0.0
    """
    import pandas as pd

    if not (isinstance(estimated, pd.DataFrame) and isinstance(truth, pd.DataFrame)):
        return _by_position(estimated, truth)
    _check_names(estimated, truth)
    spelling = dict(zip(_stored(truth), truth.columns, strict=True)) | dict(
        zip(_stored(estimated), estimated.columns, strict=True)
    )
    if len(spelling) == truth.shape[1] + estimated.shape[1]:
        msg = f"`estimated` and `truth` have no type in common: {list(estimated.columns[:3])} against {list(truth.columns[:3])}."
        raise ValueError(msg)
    x, y = (
        table.set_axis(_stored(table), axis=1).reindex(columns=list(spelling), fill_value=0.0).astype(float)
        for table in (estimated, truth)
    )
    names = list(spelling.values())
    return x.set_axis(names, axis=1), y.loc[x.index].set_axis(names, axis=1)


@checked
def evaluate(estimated: Table, truth: Table, *, threshold: float = 0.0) -> "pd.Series":
    """Summarise in one column how close an estimate is to the truth.

    Parameters
    ----------
    estimated
        Estimated proportions, n_obs x types.
    truth
        True proportions, n_obs x types.
    threshold
        A type is present in a spot where its true proportion is larger than this (for `aupr`).

    Returns
    -------
    Series with

    - `rmse`: root of the mean squared error over all spots and types,
    - `pearson`: correlation over all spots and types together,
    - `pearson_per_type`, `concordance_per_type`: means over the types of what :func:`per_type` returns,
    - `jsd`: mean over spots of the Jensen-Shannon divergence in bits, see :func:`jensen_shannon`,
    - `aupr`: average precision of finding which types are present, over all spots and types together,
    - `n_obs`, `n_excluded`: spots that were compared, and that could not be.

    Raises
    ------
    ValueError
        If the tables do not correspond, or no row is left to compare.

    Warns
    -----
    UnitsWarning
        If rows of one table add up to more than three times those of the other, as percentages do beside shares.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.array([[0.5, 0.5, 0.0], [0.2, 0.0, 0.8]])
    >>> evaluate(truth, truth)[["rmse", "pearson", "jsd", "aupr"]].tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    import pandas as pd

    est, true, n_excluded = _comparable(estimated, truth)
    types = _by_type(est, true, threshold)
    summary = {
        "rmse": rmse(est.to_numpy().ravel(), true.to_numpy().ravel()),
        "pearson": pearson(est.to_numpy().ravel(), true.to_numpy().ravel()),
        "pearson_per_type": types["pearson"].mean(),
        "concordance_per_type": types["concordance"].mean(),
        "jsd": float(np.mean(jensen_shannon(est.to_numpy(), true.to_numpy()))),
        "aupr": aupr(est.to_numpy().ravel(), true.to_numpy().ravel() > threshold),
        "n_obs": float(len(est)),
        "n_excluded": float(n_excluded),
    }
    return pd.Series(summary, name="value")


@checked
def per_type(estimated: Table, truth: Table, *, threshold: float = 0.0) -> "pd.DataFrame":
    r"""Compare an estimate with the truth type by type.

    Parameters
    ----------
    estimated
        Estimated proportions, n_obs x types.
    truth
        True proportions, n_obs x types.
    threshold
        A type is present in a spot where its true proportion is larger than this.

    Returns
    -------
    DataFrame of types x

    - `rmse`;
    - `pearson`: 0 where the estimate is constant, NaN where the truth is (there is nothing to correlate with);
    - `concordance`: Lin's :math:`2 s_{xy} / (s_x^2 + s_y^2 + (\bar x - \bar y)^2)`, which is 1 only on the line
      estimate = truth; NaN where the truth is constant;
    - `aupr`: average precision of finding the spots with the type; NaN where it is present nowhere;
    - `estimated`, `truth`: means over spots.

    Raises
    ------
    ValueError
        If the tables do not correspond, or no row is left to compare.

    Warns
    -----
    UnitsWarning
        As :func:`evaluate`.

    References
    ----------
    Lin, L. I.-K. (1989) A concordance correlation coefficient to evaluate reproducibility. Biometrics 45, 255.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.array([[0.5, 0.5], [0.2, 0.8], [0.0, 1.0]])
    >>> per_type(truth, truth)["concordance"].tolist()
    [1.0, 1.0]
    """
    est, true, _ = _comparable(estimated, truth)
    return _by_type(est, true, threshold)


@checked
def jensen_shannon(estimated: Table, truth: Table) -> np.ndarray:
    r"""Return the Jensen-Shannon divergence of every row, in bits.

    :math:`\tfrac12 KL(p \| m) + \tfrac12 KL(q \| m)` with :math:`m = (p + q) / 2` and logarithms to base 2: from 0
    (equal) to 1 (nothing in common). It is the square of `scipy.spatial.distance.jensenshannon(p, q, base=2)`.

    Parameters
    ----------
    estimated, truth
        Non-negative, of shape (n_obs, n_types); rows are scaled to sum 1. Negative estimates count as 0.

    Returns
    -------
    Of shape (n_obs,); 1 where the estimate has nothing in it, NaN where the truth has not.

    References
    ----------
    Lin, J. (1991) Divergence measures based on the Shannon entropy. IEEE Trans. Inf. Theory 37, 145.

    Examples
    --------
    >>> import numpy as np
    >>> jensen_shannon(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])).tolist()
    [0.0, 1.0]
    """
    x, y = _by_position(estimated, truth)
    p, q = to_sum_one(np.maximum(x.to_numpy(), 0.0)), to_sum_one(y.to_numpy())
    divergence = entropy_bits((p + q) / 2) - (entropy_bits(p) + entropy_bits(q)) / 2
    divergence[p.sum(axis=1) == 0] = 1.0
    divergence[q.sum(axis=1) == 0] = np.nan
    return np.clip(divergence, 0.0, 1.0)


@checked
def coverage(estimated: Table, se: Table, truth: Table, *, level: float = 0.9) -> "pd.Series":
    """Return per type how often the interval estimate ± z · se contains the truth.

    Parameters
    ----------
    estimated
        Estimated proportions, n_obs x types.
    se
        Their standard errors, same shape and names.
    truth
        True proportions, n_obs x types.
    level
        Nominal probability of the two-sided normal interval, between 0 and 1.

    Returns
    -------
    Fraction of spots per type; entries with a NaN (no estimate or no standard error) are left out, and a type without
    a standard error is NaN. Intervals that hold have fractions near `level`.

    Raises
    ------
    ValueError
        If `level` is not between 0 and 1, or the tables do not correspond.

    Examples
    --------
    >>> import numpy as np
    >>> estimated, truth = np.array([[0.5, 0.5], [0.4, 0.6]]), np.array([[0.55, 0.45], [0.0, 1.0]])
    >>> coverage(estimated, np.full((2, 2), 0.05), truth).tolist()
    [0.5, 0.5]
    """
    import pandas as pd
    from scipy import stats

    if not 0 < level < 1:
        msg = f"`level` must be between 0 and 1, got {level!r}; 0.9 is the 90% interval."
        raise ValueError(msg)
    est, true = align(estimated, truth)
    error = _standard_errors(se, estimated, est)
    inside = np.abs(est - true).to_numpy() <= stats.norm.ppf((1 + level) / 2) * error
    known = ~(np.isnan(error) | est.isna().to_numpy() | true.isna().to_numpy())
    n_known = known.sum(axis=0)
    fraction = np.divide((inside & known).sum(axis=0), n_known, out=np.full(len(n_known), np.nan), where=n_known > 0)
    return pd.Series(fraction, index=est.columns, name="coverage")


def _standard_errors(se: Table, estimated: Table, est: "pd.DataFrame") -> np.ndarray:
    """Return the standard errors in the order of the aligned estimate; NaN for a type that has none."""
    error = align(se, estimated)[0]
    known = _stored(se) if hasattr(se, "columns") else _stored(error)
    error = error.set_axis(_stored(error), axis=1)[known]
    return error.reindex(index=est.index, columns=_stored(est)).to_numpy()


def _stored(table: "pd.DataFrame") -> list[str]:
    """Return the names of the types as they are in the columns of a stored table."""
    return column_names([str(name) for name in table.columns])


def _by_position(estimated: Table, truth: Table) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Return two tables of the same shape with the names of the one that has any."""
    import pandas as pd

    named = next((t for t in (estimated, truth) if isinstance(t, pd.DataFrame)), None)
    x, y = _numbers(estimated, "estimated"), _numbers(truth, "truth")
    if x.ndim != 2 or x.shape != y.shape:
        msg = (
            f"`estimated` has shape {x.shape} and `truth` {y.shape}; without names on both sides the shapes must be "
            "(n_obs, n_types) and equal. Give two DataFrames to align them by name."
        )
        raise ValueError(msg)
    like = pd.DataFrame(x) if named is None else named
    return (pd.DataFrame(x, index=like.index, columns=like.columns),
            pd.DataFrame(y, index=like.index, columns=like.columns))  # fmt: skip


def _numbers(table: Table, name: str) -> np.ndarray:
    """Return the values of a table, NaN where there is none."""
    values = np.asarray(table)
    kinds = {dtype.kind for dtype in table.dtypes} if hasattr(table, "dtypes") else {values.dtype.kind}
    if not kinds <= set("biuf"):
        msg = f"`{name}` must hold numbers, got the types {sorted(map(str, set(getattr(table, 'dtypes', [values.dtype]))))}."
        raise ValueError(msg)
    values = np.asarray(values, dtype=float)
    if (np.abs(values[np.isfinite(values)]) > LARGEST).any() or np.isinf(values).any():
        msg = f"`{name}` holds infinite values or values above {LARGEST:g}; proportions are expected."
        raise ValueError(msg)
    return values


def _check_names(estimated: "pd.DataFrame", truth: "pd.DataFrame") -> None:
    """Raise unless the rows are the same and no name of a row or type is there twice."""
    for label, table in (("estimated", estimated), ("truth", truth)):
        _numbers(table, label)
        if not (table.index.is_unique and table.columns.is_unique):
            msg = f"`{label}` has rows or types of the same name; make them unique."
            raise ValueError(msg)
    missing = estimated.index.difference(truth.index)
    if len(missing) or len(estimated) != len(truth):
        msg = (
            f"`estimated` has {len(estimated)} rows and `truth` {len(truth)}; {len(missing)} rows of `estimated` are "
            f"not in `truth`, e.g. {list(missing[:3])}. Select the same observations on both sides."
        )
        raise ValueError(msg)


def _comparable(estimated: Table, truth: Table) -> tuple["pd.DataFrame", "pd.DataFrame", int]:
    """Return the aligned tables without the rows that cannot be compared, and how many those are."""
    est, true = align(estimated, truth)
    keep = (est.notna().all(axis=1) & true.notna().all(axis=1) & (true.sum(axis=1) > 0)).to_numpy()
    if not keep.any():
        msg = f"none of the {len(est)} rows can be compared: each has a NaN, or nothing in the truth."
        raise ValueError(msg)
    _warn_of_units(est[keep].to_numpy(), true[keep].to_numpy())
    return est[keep], true[keep], int((~keep).sum())


def _warn_of_units(est: np.ndarray, true: np.ndarray) -> None:
    """Say so where the rows of one table add up to much more than those of the other, as percentages or numbers of cells do."""
    sums = float(np.median(est.sum(axis=1))), float(np.median(true.sum(axis=1)))
    if min(sums) > 0 and max(sums) > FURTHEST * min(sums):
        msg = (
            f"rows of `estimated` add up to {sums[0]:.3g} and those of `truth` to {sums[1]:.3g}; RMSE and concordance compare "
            "the numbers as they are. Give shares on both sides: `table.div(table.sum(axis=1), axis=0)`."
        )
        warnings.warn(msg, UnitsWarning, stacklevel=5)


def _by_type(est: "pd.DataFrame", true: "pd.DataFrame", threshold: float) -> "pd.DataFrame":
    """Compare aligned tables type by type."""
    import pandas as pd

    rows = {
        name: {
            "rmse": rmse(x, y),
            "pearson": pearson(x, y),
            "concordance": concordance(x, y),
            "aupr": aupr(x, y > threshold),
            "estimated": x.mean(),
            "truth": y.mean(),
        }
        for name, x, y in zip(est.columns, est.to_numpy().T, true.to_numpy().T, strict=True)
    }
    return pd.DataFrame.from_dict(rows, orient="index")
