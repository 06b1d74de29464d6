"""Several processes that train one network: each has a part of every batch, and all take the same step.

The processes are those of torch's own process group (`torchrun`, then `torch.distributed.init_process_group`). Sums over
a batch become sums over the processes: the gradients, the moments of batch normalisation, and the losses. All else, the
order of the rows and the noise among it, every process draws from the same seed, so that the steps are those of one
process but for rounding.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Team:
    """The place of this process among those that train together."""

    rank: int = 0
    size: int = 1

    def part(self, n: int) -> slice:
        """Return this process's part of n rows.

        Examples
        --------
        >>> [Team(rank, 2).part(5) for rank in range(2)]
        [slice(0, 2, None), slice(2, 5, None)]
        """
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def total(self, value: float) -> float:
        """Return the sum of a number over the processes."""
        if self.size == 1:
            return value
        out = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(out)
        return float(out)

    def before(self, count: int) -> tuple[int, int]:
        """Return the sum of a count over the processes of lower rank, and over all."""
        if self.size == 1:
            return 0, count
        counts = torch.zeros(self.size, dtype=torch.int64)
        counts[self.rank] = count
        dist.all_reduce(counts)
        return int(counts[: self.rank].sum()), int(counts.sum())

    def add_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Replace the gradients by their sums over the processes."""
        if self.size == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in grads])
        dist.all_reduce(flat)
        for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(part.view_as(grad))


ALONE = Team()


def current_team() -> Team:
    """Return the place of this process in the process group that is initialised, alone where there is none."""
    if dist.is_available() and dist.is_initialized():
        return Team(dist.get_rank(), dist.get_world_size())
    return ALONE


class _Total(torch.autograd.Function):
    """Sums over the processes, of values and of gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        total = grad_outputs[0].clone()
        dist.all_reduce(total)
        return total


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation over the rows of all processes.

    (torch's own `SyncBatchNorm` works on GPUs only.)
    """

    team = ALONE

    def forward(self, x: Tensor) -> Tensor:
        """Return x, scaled by the moments of the batch, or when not in training by the running ones."""
        if self.team.size == 1 or not self.training:
            return super().forward(x)
        count = torch.full((1,), len(x), dtype=torch.float64, device=x.device)
        sums = _Total.apply(torch.cat([x.double().sum(0), x.double().square().sum(0), count]))
        n = sums[-1].detach()
        mean, square = (sums[:-1] / n).chunk(2)
        mean, variance = mean.float(), (square - mean.square()).float()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)  # type: ignore[union-attr,arg-type]
            self.running_var.lerp_(variance * float(n / (n - 1)), self.momentum)  # type: ignore[union-attr,arg-type]
            self.num_batches_tracked += 1  # type: ignore[operator,assignment]
        return (x - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias
