"""Autoencoders for counts: networks, one training loop, and what a fitted one gives.

Z = E(X), X = D(Z): the decoder gives every entry the parameters of a likelihood (:mod:`unmix.core.likelihoods`). `"ae"`
maximises the likelihood (Eraslan et al. 2019, Nature Communications 10, 390); `"vae"` draws Z ~ q(Z | X) and maximises
the evidence lower bound, log p(X | Z) - KL(q || N(0, 1)) (Lopez et al. 2018, Nature Methods 15, 1053).

At every step a share of the counts is hidden from the encoder, and held-out cells are scored blind: each fifth of their genes
is predicted from the other four. A network that copies its input, noise included, rebuilds unseen cells well and predicts
nothing; what it says of a count it has not seen is what denoising asks for (Batson and Royer 2019, ICML, on self-supervision).
Half of the cells are thinned before (:mod:`unmix.core.thinning`), so that the encoder knows shallow cells too.

The loop keeps the weights of the epoch with the best held-out loss. When that loss has not improved for `patience` epochs,
it returns to them with a third of the learning rate; after three such returns it ends. Nothing in it depends on
`max_epochs`, so a longer run begins exactly as a shorter one does, and an interrupted one can be resumed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unmix._settings import progress
from unmix.core.networks import UNSCORED, Batch, Design, Network, Workers
from unmix.core.recorded import Recorded
from unmix.core.team import current_team
from unmix.core.thinning import random_shares, thinned
from unmix.core.training import (
    Genes,
    Rows,
    batches,
    blind_folds,
    gene_moments,
    make_batch,
    masked,
    split_rows,
    take_rows,
)

DROP = 1 / 3
"""Factor on the learning rate at every return to the best weights."""
RETURNS = 3


@dataclass(frozen=True)
class Options:
    """How to train."""

    max_epochs: int | None = None
    """None: enough for about 2,000,000 rows, 5 to 200."""
    batch_size: int = 128
    learning_rate: float = 4e-3
    mask: float = 0.5
    """Share of the counts that the encoder does not see at a step; 0: it sees whole cells, which are not thinned either."""
    patience: int = 3
    validation: float = 0.1
    kl_warmup: int = 10
    """Epochs over which the weight of the KL term rises to 1; half of the automatic number of epochs at most."""
    device: str = "auto"
    precision: str = "auto"
    on_interrupt: str = "raise"


@dataclass
class State:
    """Where training stands: numbers, weights, and moments of the optimiser."""

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = np.inf
    waited: int = 0
    returns: int = 0
    seed: int = 0
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    best: dict[str, np.ndarray] = field(default_factory=dict)
    moments: dict[str, np.ndarray] = field(default_factory=dict)
    history: dict[str, list[float]] = field(
        default_factory=lambda: {"train": [], "validation": [], "learning_rate": []}
    )


@dataclass(frozen=True)
class Fit:
    """A fitted autoencoder."""

    design: Design
    genes: Genes
    weights: dict[str, np.ndarray]
    state: State
    held_out: np.ndarray
    """Rows of the validation set."""
    finished: bool

    @property
    def history(self) -> dict[str, list[float]]:
        """Loss per cell on training and validation rows, and learning rate, by epoch."""
        return self.state.history


def automatic_epochs(n: int) -> int:
    """Return how many epochs see about 2,000,000 rows, 5 to 200.

    Examples
    --------
    >>> automatic_epochs(2_000), automatic_epochs(100_000), automatic_epochs(1_000_000)
    (200, 20, 5)
    """
    return int(np.clip(2_000_000 // max(n, 1), 5, 200))


def bf16_is_native() -> bool:
    """Tell whether this processor multiplies bfloat16 in hardware."""
    path = Path("/proc/cpuinfo")
    return path.exists() and any(flag in path.read_text() for flag in ("avx512_bf16", "amx_bf16"))


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Hold torch to one thread; shards of a batch are what runs in parallel."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def build(design: Design, weights: dict[str, np.ndarray], options: Options = Options()) -> Network:
    """Return a network with the given weights on the device asked for."""
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    bf16 = options.precision == "bfloat16" or (options.precision == "auto" and device == "cpu" and bf16_is_native())
    net = Network(design, bf16=bf16)
    net.load_state_dict({name: torch.as_tensor(value) for name, value in weights.items()}, strict=True)
    return net.to(device)


def initial_weights(design: Design, genes: Genes, seed: int) -> dict[str, np.ndarray]:
    """Return random weights, and heads that start at the genes' means and moment dispersions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Network(design)
    G, log_theta = design.n_vars, torch.as_tensor(genes.log_dispersion())
    with torch.no_grad():
        bias = net.head.bias
        if design.likelihood == "gaussian":
            bias[:G] = torch.as_tensor(genes.blank)
            net.head.weight[:G][torch.as_tensor(~genes.varies)] = 0.0  # no step will change what is not scored
            log_theta = torch.as_tensor(np.where(genes.varies, 0.0, UNSCORED)).float()
        else:
            bias[:G] = torch.as_tensor(np.log(genes.mean + 1e-6))
        if design.inflated and design.dropout == "gene-cell":
            bias[G : 2 * G] = -3.0
        if design.dispersion == "gene-cell":
            bias[-G:] = log_theta
        one = log_theta[log_theta > UNSCORED]
        net.log_dispersion.data += (one.mean() if len(one) else 0.0) if design.dispersion == "shared" else log_theta
        net.tie[1] = -3.0
    return _arrays(net.state_dict())


def _arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy().copy() for name, value in tensors.items()}


def fit(
    rows: Rows,
    design: Design,
    options: Options = Options(),
    *,
    seed: int = 0,
    n_jobs: int = 1,
    state: State | None = None,
    on_epoch: Callable[[State], None] | None = None,
) -> Fit:
    """Train an autoencoder.

    Parameters
    ----------
    rows
        The matrix, totals of its rows, codes of batches and their design matrix.
    design
        The network.
    options
        The training.
    seed
        Seed of weights, split and order.
    n_jobs
        Threads; results do not depend on it.
    state
        Where an interrupted training stood.
    on_epoch
        Called after every epoch.

    Returns
    -------
    The fit, with the weights of the best epoch.

    Raises
    ------
    ValueError
        If fewer than ten rows have counts, or there are more processes than half a batch has rows.

    Notes
    -----
    In a process group (`torchrun`, then `torch.distributed.init_process_group`) every process computes a part of every
    batch, and all end with the same fit: that of one process, but for rounding.
    """
    if 2 * current_team().size > options.batch_size:
        msg = f"batches of {options.batch_size} rows are too small for {current_team().size} processes; give `batch_size`."
        raise ValueError(msg)
    n_used = int(rows.used.sum())
    if n_used < 10:
        msg = f"training needs at least 10 observations with counts, got {n_used}."
        raise ValueError(msg)
    with one_torch_thread():
        genes = gene_moments(rows, n_jobs)
        state = state or State(seed=seed)
        train, held = split_rows(rows, options.validation, np.random.default_rng([state.seed, 0]))
        if not state.weights:
            state.weights = initial_weights(design, genes, state.seed)
        return Trainer(rows, design, genes, options, train, held, n_jobs).run(state, on_epoch)


class Trainer:
    """The training loop."""

    def __init__(
        self,
        rows: Rows,
        design: Design,
        genes: Genes,
        options: Options,
        train: np.ndarray,
        held: np.ndarray,
        n_jobs: int,
    ) -> None:
        self.rows, self.design, self.genes, self.options, self.train, self.held = (
            rows,
            design,
            genes,
            options,
            train,
            held,
        )
        self.n_jobs, self.team = n_jobs, current_team()
        batch = make_batch(take_rows(rows.X, held), rows, held, genes)
        self.blank = None if rows.counts else genes.blank
        self.validation = blind_folds(batch, design.n_vars, np.random.default_rng(4), self.blank)
        self.max_epochs = options.max_epochs or automatic_epochs(len(train))

    def run(self, state: State, on_epoch: Callable[[State], None] | None) -> Fit:
        """Train until the held-out loss has settled, `max_epochs`, or an interrupt that is to be kept."""
        self.net = build(self.design, state.weights, self.options)
        self.net.workers = Workers(self.n_jobs)
        self.net.join(self.team)
        self.trained = [p for p in self.net.parameters() if p.numel() and p.requires_grad]
        device = self.net.device
        graphs = device.type == "cuda" and self.team.size == 1
        self.optimiser = torch.optim.Adam(self.trained, lr=self.options.learning_rate, fused=True, capturable=graphs)
        self.recorded = Recorded(self._step, self.options.batch_size, self.design.n_vars, device) if graphs else None
        self._load_moments(state.moments)
        finished = False
        try:
            for _ in progress(
                range(state.epoch, self.max_epochs), total=self.max_epochs - state.epoch, desc="training"
            ):
                if state.returns > RETURNS:
                    break
                self._epoch(state)
                if on_epoch is not None:
                    on_epoch(state)
            finished = True
        except KeyboardInterrupt:
            if self.options.on_interrupt != "keep" or not state.best:
                raise
        finally:
            self.recorded = None  # which holds this trainer's step: the memory on the GPU is freed now, not some time
            self.net.workers.close()
        return Fit(self.design, self.genes, state.best, state, self.held, finished)

    def _epoch(self, state: State) -> None:
        """Train for one epoch; commit to `state` only when it is complete."""
        rate = self.options.learning_rate * DROP**state.returns
        for group in self.optimiser.param_groups:
            if group["lr"] != rate and self.recorded is not None:
                self.recorded.forget()
            group["lr"] = rate
        train = self._train(state)
        held = self._held_out()
        weights, found = _arrays(self.net.state_dict()), {"train": train, "validation": held, "learning_rate": rate}
        history = {name: [*values, found[name]] for name, values in state.history.items()}
        new = replace(state, epoch=state.epoch + 1, history=history)
        if held < new.best_loss or not new.best:
            new.best, new.best_loss, new.best_epoch, new.waited = weights, held, new.epoch, 0
        elif new.epoch > self._warmup:
            new.waited += 1
        if new.waited >= self.options.patience:
            new.returns, new.waited = new.returns + 1, 0
            weights = new.best
            self.net.load_state_dict({k: torch.as_tensor(v) for k, v in weights.items()})
        new.weights, new.moments = weights, self._moments()
        vars(state).update(vars(new))  # in one step: no interrupt leaves half of an epoch

    @property
    def _warmup(self) -> int:
        most = automatic_epochs(len(self.train)) // 2  # many cells have few epochs: they would end before it does
        return min(self.options.kl_warmup, most) if self.design.kind == "vae" else 0

    def _train(self, state: State) -> float:
        """Take one step per batch; return the mean loss of a cell."""
        rng = np.random.default_rng([state.seed, 1, state.epoch])
        weight = min(1.0, (state.epoch + 1) / max(self._warmup, 1))
        self.net.train()
        total = torch.zeros((), dtype=torch.float64, device=self.net.device)
        step, width = self.recorded or self._step, self.design.n_latent if self.design.kind == "vae" else 0
        for part in batches(self.rows, self.train, self.genes, self.options.batch_size, rng, self.team):
            batch = part.batch
            if self.rows.counts and self.options.mask:
                shares = random_shares(part.n, rng)[part.rows]
                batch = thinned(batch, shares, self.genes.input_scale, rng, self.team)
            batch = masked(batch, self.options.mask, rng, self.team, self.blank)
            noise = rng.standard_normal((part.n, width), dtype=np.float32)[part.rows]
            total += step(batch, noise, weight, part.n)  # no number is asked for: a GPU would have to be waited for
        return self.team.total(float(total)) / len(self.train)

    @torch.no_grad()
    def _held_out(self) -> float:
        """Return the loss of a held-out cell whose genes are predicted from one another, not from themselves."""
        self.net.eval()
        total = 0.0
        for fold in self.validation[self.team.rank :: self.team.size]:
            z, _ = self.net.encode(fold.visible)
            total += float(self.net.row_losses(self.net.decode(z, fold.batch.codes), fold.target, fold.genes).sum())
        return self.team.total(total) / len(self.held)

    def _step(self, batch: Batch, noise: np.ndarray | Tensor, kl_weight: float | Tensor, n: int) -> Tensor:
        """Change the weights for this process's part of n rows; return its summed loss."""
        loss = self._loss(batch, noise, kl_weight)
        self.optimiser.zero_grad(set_to_none=True)
        (loss * (1000.0 / n / self.design.n_vars)).backward()
        self.team.add_gradients(self.trained)
        self.optimiser.step()
        return loss.detach()

    def _loss(self, batch: Batch, noise: np.ndarray | Tensor, kl_weight: float | Tensor) -> Tensor:
        """Return the summed loss: minus the log-likelihood, plus the KL divergence of a VAE."""
        z, log_var = self.net.encode(batch)
        if self.design.kind == "vae":
            kl = 0.5 * (z.square() + log_var.exp() - 1 - log_var).double().sum()
            z = z + self.net.to_device(noise) * (0.5 * log_var).exp()
            return self.net.loss(self.net.decode(z, batch.codes), batch) + kl_weight * kl
        return self.net.loss(self.net.decode(z, batch.codes), batch)

    def _moments(self) -> dict[str, np.ndarray]:
        states = self.optimiser.state_dict()["state"]
        return {f"{i}_{name}": value.cpu().numpy().copy() for i, s in states.items() for name, value in s.items()}

    def _load_moments(self, moments: dict[str, np.ndarray]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in moments.items():
            i, name = key.split("_", 1)
            state.setdefault(int(i), {})[name] = torch.tensor(value)
        if state:
            self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})
