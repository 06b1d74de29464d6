"""The autoencoder's networks, Z = E(X) and X = D(Z), and the loss that joins the last layer to a likelihood."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unmix.core._zinb_kernels import LGAMMA_TABLE, csr_times, csr_transposed_times, nb_rows
from unmix.core.likelihoods import log_prob_nonzero

BOUNDS = np.log(np.array([1e-6, 1e6, 1e-4, 1e8])).astype(np.float32)
"""Smallest and largest log mean of a cell of median size, and log dispersion."""
SHARD = 64
"""Rows that one thread takes at a time; fixed, so that results do not depend on the number of threads."""


@dataclass(frozen=True)
class Design:
    """What a network is made of."""

    n_vars: int
    n_latent: int = 32
    hidden: tuple[int, ...] = (64,)
    kind: str = "ae"
    likelihood: str = "zinb"
    dispersion: str = "gene"
    dropout: str = "gene-cell"
    ridge: float = 0.0
    n_batches: int = 1
    n_codes: int = 0
    """Columns of the design matrix of batches and covariates."""

    @property
    def inflated(self) -> bool:
        """Whether zeros may be dropouts."""
        return self.likelihood == "zinb"


@dataclass(frozen=True)
class Batch:
    """Rows of counts in CSR form, scaled inputs at the same positions, and what is known of every row."""

    indptr: np.ndarray
    indices: np.ndarray
    counts: np.ndarray
    inputs: np.ndarray
    log_size: np.ndarray
    batch: np.ndarray
    codes: np.ndarray

    @property
    def n(self) -> int:
        """Return the number of rows."""
        return len(self.log_size)

    def shard(self, start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return row pointers, columns, counts and inputs of `SHARD` rows."""
        indptr = self.indptr[start : start + SHARD + 1]
        part = slice(indptr[0], indptr[-1])
        return indptr - indptr[0], self.indices[part], self.counts[part], self.inputs[part]


class Workers:
    """Threads that work on the shards of a batch; results come back in the order of the rows."""

    def __init__(self, n_jobs: int = 1) -> None:
        self.pool = ThreadPoolExecutor(n_jobs) if n_jobs > 1 else None

    def map(self, f: Callable[[int], Any], n: int) -> list[Any]:
        """Return `f(start)` for every shard of n rows."""
        starts = range(0, n, SHARD)
        return [f(s) for s in starts] if self.pool is None else list(self.pool.map(f, starts))

    def close(self) -> None:
        """End the threads."""
        if self.pool is not None:
            self.pool.shutdown()


def product(a: Tensor, b: Tensor, bf16: bool) -> Tensor:
    """Return a b, multiplied in bfloat16 and added up in float32 where the processor has it."""
    return (a.bfloat16() @ b.bfloat16()).float() if bf16 else a @ b


class SparseLinear(torch.autograd.Function):
    """The first layer on the processor: rows in CSR form times W."""

    @staticmethod
    def forward(ctx: Any, W: Tensor, batch: Batch, workers: Workers) -> Tensor:
        """Return X W."""
        ctx.batch, ctx.workers, ctx.shape = batch, workers, W.shape
        w = W.detach().numpy()
        out = torch.empty(batch.n, W.shape[1])

        def rows(start: int) -> None:
            indptr, indices, _, inputs = batch.shard(start)
            csr_times(indptr, indices, inputs, w, out.numpy()[start : start + SHARD])

        workers.map(rows, batch.n)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Return X' G."""
        g = grad_outputs[0].contiguous().numpy()
        out = torch.zeros(ctx.shape)
        csr_transposed_times(ctx.batch.indptr, ctx.batch.indices, ctx.batch.inputs, g, out.numpy())
        return out, None, None


class CountLoss(torch.autograd.Function):
    """The decoder's last layer and the (zero-inflated) negative binomial, fused: logits become gradients."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, W: Tensor, b: Tensor, T: Tensor, tie: Tensor, net: "Network", batch: Batch
    ) -> Tensor:
        """Return the summed loss; compute all gradients on the way."""

        def shard(start: int) -> tuple[Any, ...]:
            return _shard_loss(
                h.detach()[start : start + SHARD], W.detach(), b.detach(), T.detach(), tie.detach(), net, batch, start
            )

        with torch.no_grad():
            losses, gh, *parts = zip(*net.workers.map(shard, batch.n), strict=True)
            grads = [torch.cat(gh)] + [_total(part) for part in parts]
        ctx.save_for_backward(*grads)
        return torch.tensor(sum(losses), dtype=torch.float64)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Scale the stored gradients."""
        scale = float(grad_outputs[0])
        return *(g.mul_(scale) for g in ctx.saved_tensors), None, None


def _total(parts: tuple[Tensor, ...]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


def _shard_loss(
    h: Tensor, W: Tensor, b: Tensor, T: Tensor, tie: Tensor, net: "Network", batch: Batch, start: int
) -> tuple[Any, ...]:
    """Return the loss of a shard and its gradients by h, W, b, T and tie."""
    G, design = net.design.n_vars, net.design
    out = product(h, W.t(), net.bf16).add_(b)
    A = out[:, :G]
    Q, means = (out[:, G : 2 * G], None) if design.dropout == "gene-cell" else (tie[0] * A + tie[1], A.clone())
    per_cell = design.dispersion == "gene-cell"
    tau = out[:, -G:] if per_cell else T.expand(-1, G).contiguous()
    grad_tau = tau if per_cell else torch.zeros_like(tau)
    rows = slice(start, start + len(h))
    codes = np.arange(len(h)) if per_cell else batch.batch[rows] if len(tau) > 1 else np.zeros(len(h), np.int64)
    indptr, indices, counts, _ = batch.shard(start)
    loss = nb_rows(
        A.numpy(), Q.numpy(), tau.numpy(), codes, batch.log_size[rows], indptr, indices, counts, grad_tau.numpy(),
        not per_cell, design.inflated, design.ridge, BOUNDS, LGAMMA_TABLE,
    )  # fmt: skip
    grad_tie = torch.zeros_like(tie)
    if design.inflated and means is not None:
        grad_tie = torch.stack([(Q * means).sum(0), Q.sum(0)])
        A.add_(tie[0] * Q)
    grad_T = torch.zeros_like(T) if per_cell else grad_tau.sum_to_size(T.shape)
    return loss, product(out, W, net.bf16), product(out.t(), h, net.bf16), out.sum(0), grad_T, grad_tie


class Network(nn.Module):
    """Encoder, decoder and heads.

    x -> sparse layer -> BN -> relu -> [dense -> BN -> relu ...] -> z -> BN -> relu -> dense -> BN -> relu ... -> heads

    BN scales every unit over the batch, so the constant of the inputs' z-score vanishes and inputs stay sparse. The VAE
    takes z as it is drawn, without BN.
    """

    def __init__(self, design: Design, *, bf16: bool = False) -> None:
        super().__init__()
        self.design, self.bf16, self.workers = design, bf16, Workers()
        G, hidden, L, C = design.n_vars, design.hidden, design.n_latent, design.n_codes
        self.first = nn.Parameter(nn.init.xavier_uniform_(torch.empty(G, hidden[0])))
        self.first_codes = nn.Parameter(torch.zeros(C, hidden[0]))
        self.encoder = nn.Sequential(_norm(hidden[0]), nn.ReLU(), *_dense(hidden))
        self.latent = nn.Linear(hidden[-1], L * (2 if design.kind == "vae" else 1))
        self.latent_norm = nn.Sequential(_norm(L), nn.ReLU()) if design.kind == "ae" else nn.Identity()
        widths = (L + C, *hidden[::-1])
        self.decoder = _dense(widths)
        parts = 1 + (design.inflated and design.dropout == "gene-cell") + (design.dispersion == "gene-cell")
        self.head = nn.Linear(hidden[0], parts * G)
        rows = design.n_batches if design.dispersion == "gene-batch" else 1
        self.log_dispersion = nn.Parameter(torch.zeros(rows, 1 if design.dispersion == "shared" else G))
        self.tie = nn.Parameter(torch.zeros(2, G))
        for layer in (self.latent, self.head, *(m for m in self.decoder if isinstance(m, nn.Linear))):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.first.device

    @property
    def fused(self) -> bool:
        """Whether the fused pass on the processor applies."""
        return self.device.type == "cpu" and self.design.likelihood in ("nb", "zinb")

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the latent mean, and the log variance (of no columns for a plain autoencoder)."""
        if self.device.type == "cpu":
            x = SparseLinear.apply(self.first, batch, self.workers)
        else:
            indices, inputs, indptr = (self.to_device(v) for v in (batch.indices, batch.inputs, batch.indptr))
            x = F.embedding_bag(
                indices, self.first, indptr, mode="sum", per_sample_weights=inputs, include_last_offset=True
            )
        x = x + self.to_device(batch.codes) @ self.first_codes
        z = self.latent(self.encoder(x))
        return z[:, : self.design.n_latent], z[:, self.design.n_latent :].clamp(-15, 15)

    def decode(self, z: Tensor, codes: np.ndarray) -> Tensor:
        """Return the decoder's last hidden layer."""
        return self.decoder(torch.cat([self.latent_norm(z), self.to_device(codes)], dim=1))

    def to_device(self, value: np.ndarray) -> Tensor:
        """Return an array as a tensor beside the weights."""
        return torch.as_tensor(value).to(self.device)

    def parameters_of(self, h: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Return the likelihood's parameters: log mean (with sizes), log dispersion, logit of dropout."""
        G, design = self.design.n_vars, self.design
        out = product(h, self.head.weight.t(), self.bf16) + self.head.bias
        a = out[:, :G]
        if design.likelihood == "gaussian":
            mean = a
        else:
            mean = a.clamp(float(BOUNDS[0]), float(BOUNDS[1])) + self.to_device(batch.log_size)[:, None]
        if design.likelihood == "poisson":
            return (mean,)
        tau = out[:, -G:] if design.dispersion == "gene-cell" else self.log_dispersion
        tau = tau[self.to_device(batch.batch)] if design.dispersion == "gene-batch" else tau
        tau = tau.clamp(float(BOUNDS[2]), float(BOUNDS[3]))
        if not design.inflated:
            return mean, tau
        q = out[:, G : 2 * G] if design.dropout == "gene-cell" else self.tie[0] * a + self.tie[1]
        return mean, tau, q.clamp(-30.0, 30.0)

    def log_prob(self, h: Tensor, batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the elementwise log-likelihood and the parameters."""
        rows = np.repeat(np.arange(batch.n, dtype=np.int64), np.diff(batch.indptr))
        index = self.to_device(rows * self.design.n_vars + batch.indices)
        params = self.parameters_of(h, batch)
        shape = torch.Size((batch.n, self.design.n_vars))
        return log_prob_nonzero(index, self.to_device(batch.counts), shape, self.design.likelihood, *params), params

    def loss(self, h: Tensor, batch: Batch) -> Tensor:
        """Return the summed negative log-likelihood (the ridge on dropout enters the gradient)."""
        if self.fused:
            return CountLoss.apply(h, self.head.weight, self.head.bias, self.log_dispersion, self.tie, self, batch)
        logp, params = self.log_prob(h, batch)
        loss = -logp.double().sum()
        if self.design.inflated and self.design.ridge:
            penalty = self.design.ridge * torch.sigmoid(params[2]).square().double().sum()
            loss = loss + penalty - penalty.detach()
        return loss


def _norm(width: int) -> nn.Module:
    return nn.BatchNorm1d(width, eps=1e-3)


def _dense(widths: tuple[int, ...]) -> nn.Sequential:
    """Return dense layers with BN and relu between the given widths."""
    pairs = zip(widths[:-1], widths[1:], strict=True)
    return nn.Sequential(*(layer for i, o in pairs for layer in (nn.Linear(i, o), _norm(o), nn.ReLU())))
