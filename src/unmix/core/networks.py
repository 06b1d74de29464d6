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
from unmix.core.team import BatchNorm, Team

BOUNDS = np.log(np.array([1e-6, 1e6, 1e-4, 1e8])).astype(np.float32)
"""Smallest and largest log mean of a cell of median size, and log dispersion."""
UNSCORED = 2 * float(BOUNDS[2])
"""Log precision of a gene that does not vary: below the bounds, so that it stays there, and its entries are not scored."""
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
    """An output of the network; `"elementwise"`: a line in the log mean per gene; `"constant"`: one number per gene."""
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

    def positions(self, width: int) -> np.ndarray:
        """Return the positions of the counts in the flattened matrix of so many columns."""
        rows = np.repeat(np.arange(self.n, dtype=np.int64), np.diff(self.indptr))
        return rows * width + self.indices

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
    return (rounded(a, bf16) @ rounded(b, bf16)).float() if bf16 else a @ b


def rounded(a: Tensor, bf16: bool) -> Tensor:
    """Return what :func:`product` multiplies, so that what enters several products is rounded once."""
    return a.bfloat16() if bf16 else a


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
        weights = rounded(W.detach(), net.bf16)

        def shard(start: int) -> tuple[Any, ...]:
            part = h.detach()[start : start + SHARD]
            return _shard_loss(part, weights, b.detach(), T.detach(), tie.detach(), net, batch, start)

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


@dataclass(frozen=True)
class Logits:
    """What the last layer says of some rows, as the fused pass wants it: shape (rows, heads, genes)."""

    heads: Tensor
    """Log means of cells of median size, then logits of dropout and log dispersions where they are outputs."""
    Q: Tensor
    """Logits of dropout, `Q[:, q_at]`."""
    q_at: int
    T: Tensor
    """Log dispersions, of which row i uses `T[codes[i], -1]`."""
    codes: np.ndarray

    @property
    def tied(self) -> bool:
        """Whether dropout is no output of the network, but a line in the log mean."""
        return self.Q is not self.heads

    @property
    def per_cell(self) -> bool:
        """Whether dispersions are outputs of the network."""
        return self.T is self.heads

    def losses(self, net: "Network", batch: Batch, start: int, grad_T: Tensor) -> np.ndarray:
        """Return the loss of every row; heads, Q and `grad_T` become gradients."""
        design, losses = net.design, np.empty(len(self.heads))
        indptr, indices, counts, _ = batch.shard(start)
        nb_rows(
            self.heads.numpy(), self.Q.numpy(), self.q_at, self.T.numpy(), self.T.shape[1] - 1, self.codes,
            batch.log_size[start : start + SHARD], indptr, indices, counts, grad_T.numpy(), not self.per_cell,
            design.inflated, design.ridge, BOUNDS, LGAMMA_TABLE, losses,
        )  # fmt: skip
        return losses


def logits(h: Tensor, W: Tensor, b: Tensor, T: Tensor, tie: Tensor, net: "Network", batch: Batch, start: int) -> Logits:
    """Return the logits of the shard that begins at row `start`, whose last hidden layer is h."""
    design, n = net.design, len(h)
    heads = product(h, W.t(), net.bf16).add_(b).view(n, net.n_heads, -1)
    G = heads.shape[2]
    tied = design.inflated and design.dropout != "gene-cell"
    Q = torch.addcmul(tie[1], tie[0], heads[:, 0]).view(n, 1, G) if tied else heads
    if design.dispersion == "gene-cell":
        return Logits(heads, Q, int(not tied and design.inflated), heads, np.arange(n))
    tau = T.expand(-1, G).contiguous().view(-1, 1, G)
    codes = batch.batch[start : start + n] if len(tau) > 1 else np.zeros(n, np.int64)
    return Logits(heads, Q, int(not tied and design.inflated), tau, codes)


def _shard_loss(
    h: Tensor, W: Tensor, b: Tensor, T: Tensor, tie: Tensor, net: "Network", batch: Batch, start: int
) -> tuple[Any, ...]:
    """Return the loss of a shard and its gradients by h, W, b, T and tie."""
    at = logits(h, W, b, T, tie, net, batch, start)
    A, Q = at.heads[:, 0], at.Q[:, 0]
    means = A.clone() if at.tied else A
    grad_tau = at.T if at.per_cell else torch.zeros_like(at.T)
    loss = at.losses(net, batch, start, grad_tau).sum()
    grad_tie = torch.zeros_like(tie)
    if at.tied:
        grad_tie[1] = Q.sum(0)
        if net.design.dropout == "elementwise":
            grad_tie[0] = (Q * means).sum(0)
            A.addcmul_(tie[0], Q)
    grad_T = torch.zeros_like(T) if at.per_cell else grad_tau[:, 0].sum_to_size(T.shape)
    out = at.heads.flatten(1)
    sums, out = out.sum(0), rounded(out, net.bf16)
    return loss, product(out, W, net.bf16), product(out.t(), h, net.bf16), sums, grad_T, grad_tie


class Network(nn.Module):
    """Encoder, decoder and heads.

    x -> sparse layer -> BN -> relu -> [dense -> BN -> relu ...] -> z -> BN -> dense -> BN -> relu ... -> heads

    BN takes the inputs' mean away, so that they stay sparse. The VAE takes z as it is drawn, without BN.
    """

    def __init__(self, design: Design, *, bf16: bool = False) -> None:
        super().__init__()
        self.design, self.bf16, self.workers = design, bf16, Workers()
        G, hidden, L, C = design.n_vars, design.hidden, design.n_latent, design.n_codes
        self.first = nn.Parameter(nn.init.xavier_uniform_(torch.empty(G, hidden[0])))
        self.first_codes = nn.Parameter(torch.zeros(C, hidden[0]))
        self.encoder = nn.Sequential(_norm(hidden[0]), nn.ReLU(), *_dense(hidden))
        self.latent = nn.Linear(hidden[-1], L * (2 if design.kind == "vae" else 1))
        self.latent_norm = nn.Sequential(_norm(L)) if design.kind == "ae" else nn.Identity()
        widths = (L + C, *hidden[::-1])
        self.decoder = _dense(widths)
        self.n_heads = 1 + (design.inflated and design.dropout == "gene-cell") + (design.dispersion == "gene-cell")
        self.head = nn.Linear(hidden[0], self.n_heads * G)
        rows = design.n_batches if design.dispersion == "gene-batch" else 1
        self.log_dispersion = nn.Parameter(torch.zeros(rows, 1 if design.dispersion == "shared" else G))
        self.tie = nn.Parameter(torch.zeros(2, G))
        for layer in (self.latent, self.head, *(m for m in self.decoder if isinstance(m, nn.Linear))):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        # BN takes constants before it away: their gradient is rounding, of which Adam would make steps
        constants = [layer.bias for layer in (*self.encoder, *self.decoder) if isinstance(layer, nn.Linear)]
        if design.kind == "ae":
            constants += [self.latent.bias, self.latent_norm.get_parameter("0.bias")]
        for bias in constants:
            bias.requires_grad_(False)

    def join(self, team: Team) -> None:
        """Let batch normalisation see the rows of all processes."""
        for module in self.modules():
            if isinstance(module, BatchNorm):
                module.team = team

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.first.device

    @property
    def compiled(self) -> bool:
        """Whether the kernels for the processor apply; torch's operations do the same work elsewhere."""
        return self.device.type == "cpu"

    @property
    def fused(self) -> bool:
        """Whether the fused pass on the processor applies."""
        return self.compiled and self.design.likelihood in ("nb", "zinb")

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the latent mean, and the log variance (of no columns for a plain autoencoder)."""
        if self.compiled:
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

    def to_device(self, value: np.ndarray | Tensor) -> Tensor:
        """Return an array as a tensor beside the weights; a GPU goes on with its work while it arrives."""
        if isinstance(value, Tensor):
            return value
        tensor = torch.as_tensor(value)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def last_layer(self, genes: np.ndarray | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return weights and biases of the heads, log dispersions and what ties dropout to means, of some genes."""
        T = self.log_dispersion
        if genes is None:
            return self.head.weight, self.head.bias, T, self.tie
        at = self.to_device(genes)
        W, b = (v.unflatten(0, (self.n_heads, -1))[:, at].flatten(0, 1) for v in (self.head.weight, self.head.bias))
        return W, b, T if T.shape[1] == 1 else T[:, at], self.tie[:, at]

    def parameters_of(self, h: Tensor, batch: Batch, genes: np.ndarray | None = None) -> tuple[Tensor, ...]:
        """Return the likelihood's parameters, of some genes: log mean (with sizes), log dispersion, logit of dropout."""
        design, (W, b, T, tie) = self.design, self.last_layer(genes)
        out = (product(h, W.t(), self.bf16) + b).unflatten(1, (self.n_heads, -1))
        a = out[:, 0]
        if design.likelihood == "gaussian":
            mean = a
        else:
            mean = a.clamp(float(BOUNDS[0]), float(BOUNDS[1])) + self.to_device(batch.log_size)[:, None]
        if design.likelihood == "poisson":
            return (mean,)
        tau = out[:, -1] if design.dispersion == "gene-cell" else T
        tau = tau[self.to_device(batch.batch)] if design.dispersion == "gene-batch" else tau
        tau = tau.clamp(float(BOUNDS[2]), float(BOUNDS[3]))
        if not design.inflated:
            return mean, tau
        if design.dropout == "gene-cell":
            q = out[:, 1]
        else:
            q = tie[1].expand_as(a) if design.dropout == "constant" else tie[0] * a + tie[1]
        return mean, tau, q.clamp(-30.0, 30.0)

    @torch.no_grad()
    def row_losses(self, h: Tensor, batch: Batch, genes: np.ndarray | None = None) -> np.ndarray:
        """Return the negative log-likelihood of every row of a batch, which holds the given genes alone."""
        if not self.fused:
            return -self.log_prob(h, batch, genes)[0].double().sum(1).cpu().numpy()
        (W, b, T, tie), losses = self.last_layer(genes), []
        W = rounded(W, self.bf16)
        for start in range(0, batch.n, SHARD):
            at = logits(h[start : start + SHARD], W, b, T, tie, self, batch, start)
            losses.append(at.losses(self, batch, start, torch.zeros_like(at.T)))
        return np.concatenate(losses)

    def log_prob(self, h: Tensor, batch: Batch, genes: np.ndarray | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the elementwise log-likelihood (0 for real values that do not vary) and the parameters."""
        width = self.design.n_vars if genes is None else len(genes)
        index = self.to_device(batch.positions(width))
        params = self.parameters_of(h, batch, genes)
        shape = torch.Size((batch.n, width))
        logp = log_prob_nonzero(index, self.to_device(batch.counts), shape, self.design.likelihood, *params)
        return logp * (params[1] > BOUNDS[2]) if self.design.likelihood == "gaussian" else logp, params

    def loss(self, h: Tensor, batch: Batch) -> Tensor:
        """Return the summed negative log-likelihood (the ridge on dropout enters the gradient)."""
        if self.fused:
            return CountLoss.apply(h, *self.last_layer(), self, batch)
        logp, params = self.log_prob(h, batch)
        loss = -logp.double().sum()
        if self.design.inflated and self.design.ridge:
            penalty = self.design.ridge * torch.sigmoid(params[2]).square().double().sum()
            loss = loss + penalty - penalty.detach()
        return loss


def _norm(width: int) -> nn.Module:
    return BatchNorm(width, eps=1e-3)


def _dense(widths: tuple[int, ...]) -> nn.Sequential:
    """Return dense layers with BN and relu between the given widths."""
    pairs = zip(widths[:-1], widths[1:], strict=True)
    return nn.Sequential(*(layer for i, o in pairs for layer in (nn.Linear(i, o), _norm(o), nn.ReLU())))
