"""A tissue with a known composition: spots on a grid, smooth fields over them, few types in each.

The composition of spot s is the softmax of `contrast * f_k(s) + log(abundance_k)`, cut off after the largest few types.
The fields f_k are Gaussian with covariance :math:`exp(-d^2 / 2 l^2)` for spots at distance d, drawn with random Fourier
features (Rahimi and Recht 2007), so that a million spots need no matrix of distances.
"""

import numpy as np

N_WAVES = 128


def grid(n_rows: int, n_cols: int, n_spots: int | None = None) -> np.ndarray:
    """Return row and column of the first `n_spots` places of a grid, shape (n_spots, 2), row by row."""
    places = np.indices((n_rows, n_cols)).reshape(2, -1).T
    return places[:n_spots]


def smooth_fields(places: np.ndarray, n_fields: int, length: float, rng: np.random.Generator) -> np.ndarray:
    """Draw independent Gaussian fields of mean 0 and variance 1.

    Parameters
    ----------
    places
        Coordinates of shape (n_spots, 2).
    n_fields
        Number of fields.
    length
        Distance l over which the fields change; 0 for values that are independent from spot to spot.
    rng
        Source of randomness.

    Returns
    -------
    Of shape (n_spots, n_fields).
    """
    if length == 0:
        return rng.standard_normal((len(places), n_fields))
    frequencies = rng.standard_normal((2, N_WAVES)) / length
    amplitudes = rng.standard_normal((2 * N_WAVES, n_fields)) / np.sqrt(N_WAVES)
    fields = np.empty((len(places), n_fields))
    for start in range(0, len(places), 65536):
        phase = places[start : start + 65536] @ frequencies
        fields[start : start + 65536] = np.hstack([np.cos(phase), np.sin(phase)]) @ amplitudes
    return fields


def compositions(fields: np.ndarray, abundance: np.ndarray, types_per_spot: int, contrast: float = 2.0) -> np.ndarray:
    """Turn fields into proportions with at most `types_per_spot` types in a spot.

    Parameters
    ----------
    fields
        Of shape (n_spots, n_types).
    abundance
        How common each type is, positive, shape (n_types,).
    types_per_spot
        The largest so many types of a spot are kept; the others are exactly 0.
    contrast
        How much the composition changes over the tissue.

    Returns
    -------
    Of shape (n_spots, n_types); rows sum to 1.
    """
    logits = contrast * fields + np.log(abundance)
    if types_per_spot < logits.shape[1]:
        cut = -np.partition(-logits, types_per_spot - 1, axis=1)[:, [types_per_spot - 1]]
        logits[logits < cut] = -np.inf
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def cells_in_spots(proportions: np.ndarray, mean: float, rng: np.random.Generator) -> np.ndarray:
    """Draw how many cells of each type are in a spot: 1 + Poisson(mean - 1) cells, multinomial over the types."""
    n_cells = 1 + rng.poisson(mean - 1, len(proportions))
    return rng.multinomial(n_cells, proportions)
