"""One type more than the reference has: its profile is found from the spots.

Symbols: y_ig, S, p, w and phi are those of :mod:`unmix.core.countmodel`; u_g is the profile of the unknown type and z_i its
amount in spot i, so that the mean is m_ig = p_g (S w_i + u z_i)_g; m_g is a gene's mean over the known types.

A column that is free to be anything is not a type: what fits the known types badly would go there, and adding known types to
it would change nothing. A type is one of a population. The known types tell how much types differ in a gene
(:mod:`unmix.core.shrinkage`), u_g = m_g r_g with r_g ~ Gamma(a, a), a of the mixture that the reference was shrunk by; u is its
posterior mean given the spots. EM steps on u, each longer than the last as long as the likelihood rises (Salakhutdinov and
Roweis 2003), take turns with the fit of all weights. The type is believed where the log-likelihood rises by more than the
parameters spent (Akaike).

References: Akaike, H. (1974) A new look at the statistical model identification. IEEE Trans. Autom. Control 19, 716.
Salakhutdinov, R. and Roweis, S. (2003) Adaptive overrelaxed bound optimization methods. ICML 20, 664.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from unmix.core._countmodel_kernels import column_counts, fit_rows
from unmix.core.shrinkage import shrink_one

N_FEELERS, N_FINALISTS = 8, 2
"""Steps that every start is given, and how many of the best go on: the first of them need not end best."""
MAX_STEPS = 80
N_NEWTON = 3
"""Newton steps on the weights after every step on the profile."""
GROWTH = 1.4
MAX_STRETCH = 30.0
"""A step that raised the likelihood makes the next one longer, by so much and up to here; one that did not is taken plainly."""
TOLERANCE = 0.2
"""The steps end where the log-likelihood of the sample rises by less."""
CLIP = 5.0
Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class UnknownType:
    """What the spots say of a type that the reference lacks."""

    profile: np.ndarray
    """u, the profile that the weights and the likelihood belong to, shape (G,)."""
    variance: np.ndarray
    """Posterior variance of u, shape (G,)."""
    weights: np.ndarray
    """Weights of all types, the unknown one last, shape (N, K + 1)."""
    log_likelihood: float
    gain: float
    """Log-likelihood over that without the type."""
    n_parameters: float
    """Parameters that the data decide: spots with the type, and genes in so far as they leave the prior."""

    @property
    def supported(self) -> bool:
        """Whether the likelihood pays for the parameters."""
        return self.gain > self.n_parameters


def find_unknown(
    Y: sparse.csr_array, S: np.ndarray, W: np.ndarray, p: np.ndarray, phi: float, strengths: np.ndarray
) -> UnknownType:
    """Find the type that explains best what the known ones do not.

    Parameters
    ----------
    Y
        Counts, shape (N, G).
    S
        Profiles of the known types, shape (G, K).
    W
        Their fitted weights, shape (N, K).
    p
        Platform factors, shape (G,).
    phi
        Dispersion.
    strengths
        Weights of :data:`unmix.core.shrinkage.STRENGTHS`, shape (A,).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> S = rng.gamma(0.5, 1.0, (60, 3))
    >>> Y = sparse.csr_array(rng.poisson(300 * rng.dirichlet(np.ones(3), 80) @ S.T).astype(float))
    >>> W = fit_rows(Y.indptr.astype(np.int64), Y.indices.astype(np.int64), Y.data, S[:, :2], 0.0, np.ones((80, 2)), 50)[0]
    >>> find_unknown(Y, S[:, :2], W, np.ones(60), 0.0, np.full(8, 1 / 8)).supported
    True
    """
    rows = (Y.indptr.astype(np.int64), Y.indices.astype(np.int64), Y.data.astype(np.float64))
    search = _Search(rows, S, p, phi, strengths, np.maximum(S.mean(axis=1), 1e-300))
    without = float(fit_rows(*rows, S * p[:, None], phi, W.copy(), 5)[1].sum())
    starts = [_State.start(W, u) for u in _starts(Y.toarray(), S, W, p, phi)]
    felt = sorted((search.run(state, N_FEELERS) for state in starts), key=lambda state: state.value)
    ends = [search.found(search.run(state, MAX_STEPS), without) for state in felt[-N_FINALISTS:]]
    return max(ends, key=lambda found: found.gain - found.n_parameters)


@dataclass(frozen=True)
class _State:
    u: np.ndarray
    W: np.ndarray
    value: float
    stretch: float = GROWTH

    @staticmethod
    def start(W: np.ndarray, u: np.ndarray) -> "_State":
        return _State(u, np.column_stack([W, 0.1 * W.sum(axis=1)]), -np.inf)


@dataclass(frozen=True)
class _Search:
    """The problem: rows of counts and what is known."""

    rows: Rows
    S: np.ndarray
    p: np.ndarray
    phi: float
    strengths: np.ndarray
    means: np.ndarray

    def fit(self, u: np.ndarray, W: np.ndarray) -> _State:
        """Fit the weights of all types to a profile of the unknown one."""
        W, value, *_ = fit_rows(*self.rows, self._profiles(u), self.phi, W.copy(), N_NEWTON)
        return _State(u, W, float(value.sum()))

    def posterior(self, state: _State) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean and variance of u given the counts that fall to it, and how far every gene has left its prior."""
        counts, exposure = column_counts(*self.rows, self._profiles(state.u), self.phi, state.W)
        return shrink_one(counts, exposure * self.p, self.means, self.strengths)

    def step(self, state: _State) -> _State:
        """One step of EM, stretched if that raises the likelihood."""
        plain = self.posterior(state)[0]
        far = self.fit(state.u * np.clip(plain / state.u, 1e-3, 1e3) ** state.stretch, state.W)
        if far.value > state.value:
            return replace(far, stretch=min(state.stretch * GROWTH, MAX_STRETCH))
        return self.fit(plain, state.W)

    def run(self, state: _State, n_steps: int) -> _State:
        """Step until the likelihood has stopped rising; the prior may lower it by a little at first."""
        state = self.fit(state.u, state.W)
        for _ in range(n_steps):
            last, state = state, self.step(state)
            if abs(state.value - last.value) < TOLERANCE:
                break
        return state

    def found(self, state: _State, without: float) -> UnknownType:
        """Return the type of a state, beside the log-likelihood without it."""
        _, variance, decided = self.posterior(state)
        spent = float(decided.sum() + np.count_nonzero(state.W[:, -1]))
        return UnknownType(state.u, variance, state.W, state.value, state.value - without, spent)

    def _profiles(self, u: np.ndarray) -> np.ndarray:
        return np.column_stack([self.S, u]) * self.p[:, None]


def _starts(Y: np.ndarray, S: np.ndarray, W: np.ndarray, p: np.ndarray, phi: float) -> list[np.ndarray]:
    """Profiles of the counts beyond the fit, pooled over either side of the two largest axes of the residuals."""
    mean = W @ (S * p[:, None]).T
    excess = Y - mean
    residual = np.clip(excess / np.sqrt(np.maximum(mean + phi * mean**2, 0.05)), -CLIP, CLIP)
    axes = np.linalg.eigh(residual @ residual.T)[1][:, -2:]
    pooled = [np.maximum(np.maximum(sign * axis, 0.0) @ excess, 0.0) / p for axis in axes.T for sign in (1, -1)]
    average = np.maximum(S.mean(axis=1), 1e-300)
    return [np.maximum(u * average.sum() / max(u.sum(), 1e-300), 1e-3 * average) for u in pooled]
