"""How well numbers agree with the truth: measures on arrays."""

import numpy as np


def rmse(x: np.ndarray, y: np.ndarray) -> float:
    """Return the root of the mean squared difference."""
    return float(np.sqrt(np.mean((x - y) ** 2)))


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Return the correlation of an estimate x with a truth y: NaN where y is constant, 0 where only x is."""
    if np.ptp(y) == 0:
        return float("nan")
    return 0.0 if np.ptp(x) == 0 else float(np.corrcoef(x, y)[0, 1])


def concordance(x: np.ndarray, y: np.ndarray) -> float:
    """Return Lin's concordance of an estimate x with a truth y; NaN where y is constant."""
    if np.ptp(y) == 0:
        return float("nan")
    (sxx, sxy), (_, syy) = np.cov(x, y, bias=True)
    return float(2 * sxy / (sxx + syy + (x.mean() - y.mean()) ** 2))


def aupr(score: np.ndarray, present: np.ndarray) -> float:
    """Return the average precision sum_n (R_n - R_(n-1)) P_n over the distinct scores; NaN where nothing is present."""
    if not present.any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(present[order])
    last = np.append(np.diff(score[order]) != 0, True)  # ties are one step
    precision, recall = (hits / np.arange(1, len(hits) + 1))[last], hits[last] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def to_sum_one(table: np.ndarray) -> np.ndarray:
    """Divide every row by its sum; rows of zeros stay."""
    total = table.sum(axis=1, keepdims=True)
    return np.divide(table, total, out=np.zeros_like(table, dtype=float), where=total > 0)


def entropy_bits(p: np.ndarray) -> np.ndarray:
    """Return the entropy -sum p log2 p of every row."""
    return -(p * np.log2(p, out=np.zeros_like(p), where=p > 0)).sum(axis=1)
