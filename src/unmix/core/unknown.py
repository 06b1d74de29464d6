"""One type more than the reference has: its profile is found from the spots.

Symbols: y_ig, S, p, w and phi are those of :mod:`unmix.core.countmodel`; u_g is the profile of the unknown type and z_i its
amount in spot i, so that the mean is m_ig = p_g (S w_i + u z_i)_g; m_g is a gene's mean over the known types.

A column that is free to be anything is not a type: what fits the known types badly would go there, and adding known types to
it would change nothing. A type is one of a population. The known types tell how much types differ in a gene
(:mod:`unmix.core.shrinkage`), u_g = m_g r_g with r_g ~ Gamma(a, a), a of the mixture that the reference was shrunk by; u is its
posterior mean given the spots. EM steps on u, each longer than the last as long as the likelihood rises (Salakhutdinov and
Roweis 2003), take turns with the fit of all weights.

What known types can make up for is theirs. A mixture S c of them that is taken out of u, its weights z c given to them, leaves
the mean as it is as long as nothing becomes negative, so that steps of EM hardly move along it, and u may end as half of the
tissue. Mixtures of several sizes are taken out, and the likeliest profile is kept. Besides, cells of a known type are not quite
what they were in the reference, and what is common to their deviations looks like a type. If every gene deviates by a normal
log of standard deviation s, a count gains s^2 / 2 by it (less where dispersion makes it worth less), and so much every count of
the unknown type has to gain. The type is believed where the log-likelihood rises by more than that and the parameters spent
(Akaike).

References: Akaike, H. (1974) A new look at the statistical model identification. IEEE Trans. Autom. Control 19, 716.
Salakhutdinov, R. and Roweis, S. (2003) Adaptive overrelaxed bound optimization methods. ICML 20, 664.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.optimize import minimize

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
DEVIATION = 0.25
"""Standard deviation s of the logarithms by which a known type's genes may differ between reference and tissue."""
STRENGTHS = tuple(4.0**k for k in range(-4, 3))
"""How hard known types are taken out of the profile, in units of what is asked of all its counts."""
N_SETTLED = 20
"""Newton steps on the weights after that."""
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
    excused: float
    """What deviations of known types would gain on the counts of the type."""
    n_parameters: float
    """Parameters that the data decide: spots with the type, and genes in so far as they leave the prior."""

    @property
    def supported(self) -> bool:
        """Whether the likelihood pays for the parameters."""
        return self.merit > 0

    @property
    def merit(self) -> float:
        """Log-likelihood beyond what deviations of known types, and chance, would gain."""
        return self.gain - self.excused - self.n_parameters


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
    ends = [search.found(search.apart(search.run(state, MAX_STEPS)), without) for state in felt[-N_FINALISTS:]]
    return max(ends, key=lambda found: found.merit)


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

    def fit(self, u: np.ndarray, W: np.ndarray, n_steps: int = N_NEWTON) -> _State:
        """Fit the weights of all types to a profile of the unknown one."""
        W, value, *_ = fit_rows(*self.rows, self._profiles(u), self.phi, W.copy(), n_steps)
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

    def apart(self, state: _State) -> _State:
        """Take the known types out of the profile, as far as that is likeliest."""
        variance, strength = self.posterior(state)[1], self.excused(state)
        states = [self.fit(state.u, state.W, N_SETTLED)]
        for more in STRENGTHS:
            c = _mixture_within(state.u, variance, self.S, more * strength)
            rest = np.maximum(state.u - self.S @ c, 1e-3 * state.u)
            scale = state.u.sum() / rest.sum()  # a cell's RNA, as before
            W = np.column_stack([state.W[:, :-1] + state.W[:, -1:] * c, state.W[:, -1] / scale])
            states.append(self.fit(rest * scale, W, N_SETTLED))
        return max(states, key=lambda found: found.value)

    def excused(self, state: _State) -> float:
        """Return what deviations of known types would gain on the counts that a state gives to the unknown one."""
        exposure = column_counts(*self.rows, self._profiles(state.u), self.phi, state.W)[1]
        return float(0.5 * DEVIATION**2 * (exposure * self.p) @ state.u)

    def found(self, state: _State, without: float) -> UnknownType:
        """Return the type of a state, beside the log-likelihood without it."""
        _, variance, decided = self.posterior(state)
        spent = float(decided.sum() + np.count_nonzero(state.W[:, -1]))
        return UnknownType(state.u, variance, state.W, state.value, state.value - without, self.excused(state), spent)

    def _profiles(self, u: np.ndarray) -> np.ndarray:
        return np.column_stack([self.S, u]) * self.p[:, None]


def _mixture_within(u: np.ndarray, variance: np.ndarray, S: np.ndarray, strength: float) -> np.ndarray:
    """Return c >= 0 whose mixture S c holds as much of the RNA of u as goes without exceeding u by more than its errors.

    c maximises strength * sum(S c) / sum(u) - sum_g max(S c - u, 0)_g^2 / (2 variance_g).
    """
    unit = 1 / np.sqrt(np.maximum((S**2 / variance[:, None]).sum(axis=0), 1e-300))  # equal curvatures
    A, slope = S * unit, strength * S.sum(axis=0) * unit / u.sum()

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        beyond = np.maximum(A @ x - u, 0.0)
        return 0.5 * float(beyond**2 @ (1 / variance)) - float(slope @ x), A.T @ (beyond / variance) - slope

    found = minimize(loss, np.zeros(S.shape[1]), jac=True, bounds=[(0.0, None)] * S.shape[1], method="L-BFGS-B")
    return np.asarray(found.x * unit)


def _starts(Y: np.ndarray, S: np.ndarray, W: np.ndarray, p: np.ndarray, phi: float) -> list[np.ndarray]:
    """Profiles of the counts beyond the fit, pooled over either side of the two largest axes of the residuals."""
    mean = W @ (S * p[:, None]).T
    excess = Y - mean
    residual = np.clip(excess / np.sqrt(np.maximum(mean + phi * mean**2, 0.05)), -CLIP, CLIP)
    axes = np.linalg.eigh(residual @ residual.T)[1][:, -2:]
    pooled = [np.maximum(np.maximum(sign * axis, 0.0) @ excess, 0.0) / p for axis in axes.T for sign in (1, -1)]
    average = np.maximum(S.mean(axis=1), 1e-300)
    return [np.maximum(u * average.sum() / max(u.sum(), 1e-300), 1e-3 * average) for u in pooled]
