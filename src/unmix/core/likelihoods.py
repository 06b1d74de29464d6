r"""Likelihoods of counts, exact at logit level, with closed-form gradients.

Notation, elementwise: count :math:`x`, mean :math:`\mu = e^a`, inverse dispersion :math:`\theta = e^t` (variance
:math:`\mu + \mu^2 / \theta`), ratio :math:`r = \mu / \theta`, dropout probability :math:`\pi = \mathrm{sigmoid}(q)`.

.. math::

    \log NB(0) &= l_0 = -\theta \log(1 + r) \\
    \log NB(x) &= x a - (\theta + x) \log(1 + r) + L(x, \theta) - \log x! \\
    L(x, \theta) &= \log \Gamma(x + \theta) - \log \Gamma(\theta) - x \log \theta
                  = \textstyle\sum_{k < x} \log(1 + k / \theta) \\
    \log ZINB(0) &= \log(\pi + (1 - \pi) e^{l_0}) \qquad
    \log ZINB(x) = \log(1 - \pi) + \log NB(x)

Every likelihood is two small functions, one for the zeros and one for the counts above zero; each returns the
log-likelihood and its derivatives. The zeros of a count matrix, most of it, so need no gamma function, and L and
its derivative vanish as
:math:`\theta \to \infty`, which leaves the Poisson distribution. Counts above zero are evaluated in double precision
whatever the precision of the parameters: they are few, and their terms cancel.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Terms: TypeAlias = "tuple[Tensor, tuple[Tensor, ...]]"
"""A log-likelihood and its derivatives by each parameter."""

STIRLING_FROM = 10.0
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def log1p_minus(y: Tensor) -> Tensor:
    """Return log(1 + y) - y for y >= 0, without cancellation at small y."""
    s = y / (2 + y)
    s2 = s * s
    tail = 1 / 3 + s2 * (1 / 5 + s2 * (1 / 7 + s2 * (1 / 9 + s2 * (1 / 11 + s2 * (1 / 13 + s2 / 15)))))
    return torch.where(y < 0.2, s * (2 * s2 * tail - y), torch.log1p(y) - y)


def rising_terms(x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :math:`L(x, \theta)` and :math:`S(x, \theta) = -\partial L / \partial \log\theta = \sum_k k / (\theta + k)`.

    From Stirling's series where theta is large, so that neither is a difference of large numbers; from the gamma and
    digamma functions elsewhere.
    """
    large = theta >= STIRLING_FROM
    L = torch.lgamma(x + theta) - torch.lgamma(theta) - x * torch.log(theta)
    S = x - theta * (torch.digamma(x + theta) - torch.digamma(theta))
    L_large, S_large = _stirling_terms(x, theta.clamp(min=STIRLING_FROM))
    return torch.where(large, L_large, L), torch.where(large, S_large, S)


def _stirling_terms(x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    y, z = x / theta, x + theta
    curve = theta * log1p_minus(y)
    first = -y / (12 * z)
    L = curve + (x - 0.5) * torch.log1p(y) + first + _lgamma_tail(z) - _lgamma_tail(theta)
    S = -curve - x / (2 * z) - theta * (_digamma_tail(z) - _digamma_tail(theta))
    return L, S


def _lgamma_tail(z: Tensor) -> Tensor:
    """Return the terms of Stirling's series for log Gamma(z) after 1 / (12 z)."""
    w = 1 / (z * z)
    return -w / z * (1 / 360 - w * (1 / 1260 - w * (1 / 1680 - w * (1 / 1188 - w * 691 / 360360))))


def _digamma_tail(z: Tensor) -> Tensor:
    """Return the terms of Stirling's series for digamma(z) after -1 / (2 z)."""
    w = 1 / (z * z)
    return -w * (1 / 12 - w * (1 / 120 - w * (1 / 252 - w * (1 / 240 - w * (1 / 132 - w * 691 / 32760)))))


def _ratio(a: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return theta, r = mu / theta, log(1 + r), and theta (log(1 + r) - r / (1 + r)), which is minus d l0 / d t."""
    theta = torch.exp(t)
    r = torch.exp(a) / theta
    return theta, r, torch.log1p(r), theta * (log1p_minus(r) + r * r / (1 + r))


def poisson_zero(a: Tensor) -> Terms:
    """Return log Poisson(0) = -mu and its derivative by a = log mu."""
    minus_mu = -torch.exp(a)
    return minus_mu, (minus_mu.clone(),)


def poisson_count(x: Tensor, a: Tensor) -> Terms:
    """Return log Poisson(x) and its derivative by a = log mu."""
    mu = torch.exp(a)
    return x * a - mu - torch.lgamma(x + 1), (x - mu,)


def nb_zero(a: Tensor, t: Tensor) -> Terms:
    """Return log NB(0) = l0 and its derivatives by a = log mu and t = log theta."""
    theta, r, log1p_r, curve = _ratio(a, t)
    return -theta * log1p_r, (-theta * (r / (1 + r)), -curve)


def nb_count(x: Tensor, a: Tensor, t: Tensor) -> Terms:
    """Return log NB(x) and its derivatives by a = log mu and t = log theta."""
    theta, r, log1p_r, curve = _ratio(a, t)
    L, S = rising_terms(x, theta)
    logp = x * (a - log1p_r) - theta * log1p_r + L - torch.lgamma(x + 1)
    return logp, ((x - theta * r) / (1 + r), x * (r / (1 + r)) - S - curve)


def zinb_zero(a: Tensor, t: Tensor, q: Tensor) -> Terms:
    r"""Return log ZINB(0) and its derivatives by a, t and the logit q.

    Of the two forms, :math:`\log(1 + (1 - \pi)(e^{l_0} - 1))` keeps all digits where a zero is probable,
    :math:`\log(e^q + e^{l_0}) - \log(1 + e^q)` where it is small.
    """
    l0, (da, dt) = nb_zero(a, t)
    missing = torch.expm1(l0) * torch.sigmoid(-q)
    logp = torch.where(missing > -0.5, torch.log1p(missing), torch.logaddexp(q, l0) + logsigmoid(-q))
    from_nb = torch.sigmoid(l0 - q)
    return logp, (from_nb * da, from_nb * dt, -missing * torch.sigmoid(q - l0))


def zinb_count(x: Tensor, a: Tensor, t: Tensor, q: Tensor) -> Terms:
    """Return log ZINB(x) for x > 0 and its derivatives by a, t and the logit q."""
    logp, (da, dt) = nb_count(x, a, t)
    return logp + logsigmoid(-q), (da, dt, -torch.sigmoid(q))


def gaussian_zero(m: Tensor, t: Tensor) -> Terms:
    """Return the log-density at 0 of a Gaussian of mean m and precision exp(t), and its derivatives by m and t."""
    return gaussian_count(torch.zeros_like(m), m, t)


def gaussian_count(x: Tensor, m: Tensor, t: Tensor) -> Terms:
    """Return the log-density at x of a Gaussian of mean m and precision exp(t), and its derivatives by m and t."""
    precision, error = torch.exp(t), x - m
    half_square = 0.5 * precision * error * error
    return 0.5 * t - half_square - HALF_LOG_2PI, (precision * error, 0.5 - half_square)


@dataclass(frozen=True)
class Likelihood:
    """A likelihood as its terms at zero and above, and the names of its parameters."""

    name: str
    parameters: tuple[str, ...]
    zero: Callable[..., Terms]
    count: Callable[..., Terms]


LIKELIHOODS = {
    "gaussian": Likelihood("gaussian", ("mean", "dispersion"), gaussian_zero, gaussian_count),
    "poisson": Likelihood("poisson", ("mean",), poisson_zero, poisson_count),
    "nb": Likelihood("nb", ("mean", "dispersion"), nb_zero, nb_count),
    "zinb": Likelihood("zinb", ("mean", "dispersion", "dropout"), zinb_zero, zinb_count),
}


class _LogProb(torch.autograd.Function):
    """Elementwise log-likelihood of a matrix given by its non-zeros; derivatives are computed on the way forward."""

    @staticmethod
    def forward(
        ctx: Any, likelihood: Likelihood, index: Tensor, x: Tensor, shape: torch.Size, *params: Tensor
    ) -> Tensor:
        """Evaluate every entry as a zero, then overwrite the entries at `index`."""
        full = [p.expand(shape) for p in params]
        logp, grads = likelihood.zero(*full)
        at = [p.reshape(-1)[index].double() for p in full]
        logp_x, grads_x = likelihood.count(x.double(), *at)
        for whole, part in zip((logp, *grads), (logp_x, *grads_x), strict=True):
            whole.view(-1)[index] = part.to(whole.dtype)
        ctx.save_for_backward(*grads)
        ctx.shapes = [p.shape for p in params]
        return logp

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Multiply by the stored derivatives; sum over what was broadcast."""
        (g,) = grad_outputs
        grads = [(g * d).sum_to_size(s) for d, s in zip(ctx.saved_tensors, ctx.shapes, strict=True)]
        return None, None, None, None, *grads


def log_prob(x: Tensor, likelihood: str, *params: Tensor) -> Tensor:
    r"""Return the elementwise log-likelihood of `x`.

    Parameters
    ----------
    x
        Counts (any real number for `"gaussian"`) of any shape.
    likelihood
        `"poisson"`, `"nb"`, `"zinb"` or `"gaussian"`.
    params
        Tensors that broadcast to the shape of `x`: log mean; log inverse dispersion (`"nb"`, `"zinb"`); logit of the
        dropout probability (`"zinb"`). For `"gaussian"`: mean and log precision.

    Returns
    -------
    Log-likelihood in nats, of the shape of `x`; differentiable by `params`.

    Examples
    --------
    >>> import torch
    >>> mean, dispersion = torch.tensor([0.0]), torch.tensor([13.8])  # a dispersion of 1e6 is Poisson
    >>> log_prob(torch.tensor([0.0, 1.0]), "zinb", mean, dispersion, torch.tensor([-2.2]))
    tensor([-0.8418, -1.1051])
    """
    index = x.reshape(-1).nonzero().squeeze(1)
    return log_prob_nonzero(index, x.reshape(-1)[index], x.shape, likelihood, *params)


def log_prob_nonzero(index: Tensor, values: Tensor, shape: torch.Size, likelihood: str, *params: Tensor) -> Tensor:
    """Return the elementwise log-likelihood of a matrix that is given by its non-zeros.

    Parameters
    ----------
    index
        Positions of the non-zeros in the flattened matrix.
    values
        The non-zeros.
    shape
        Shape of the matrix and of the result.
    likelihood, params
        As in :func:`log_prob`.

    Raises
    ------
    ValueError
        If the likelihood is unknown, or the number of parameters is not its own.
    """
    if likelihood not in LIKELIHOODS:
        msg = f"`likelihood` must be one of {sorted(LIKELIHOODS)}, got {likelihood!r}."
        raise ValueError(msg)
    terms = LIKELIHOODS[likelihood]
    if len(params) != len(terms.parameters):
        msg = f"likelihood {likelihood!r} takes {', '.join(terms.parameters)}; got {len(params)} parameters."
        raise ValueError(msg)
    return _LogProb.apply(terms, index, values, torch.Size(shape), *params)
