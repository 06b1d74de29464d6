"""Steps of the training on a GPU, recorded once and replayed.

A batch is little work for a GPU: starting hundreds of operations one by one takes longer than the operations. A recorded step
(a CUDA graph) starts them all at once. It reads and writes the same places in memory every time, so that a batch is copied into
buffers of a fixed size. The rest of a buffer repeats the last count: a count that is written twice to its place in the
likelihood is the same count, and its input to the encoder is 0.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from unmix.core.networks import Batch

WARM_UP = 3
"""Steps that run one operation at a time before one is recorded."""
SPARE = 1.2
"""Room for more counts than the batches had until then; a batch of even more is not replayed."""
Step = Callable[[Batch, "np.ndarray | Tensor", "float | Tensor", int], Tensor]
"""Takes a step for a batch, noise, the weight of the KL term and the number of rows; returns the loss."""


@dataclass(frozen=True)
class Buffers(Batch):
    """A batch in buffers of a fixed size on a device."""

    flat: Tensor

    def positions(self, width: int) -> np.ndarray:
        """Return positions of the counts in the flattened matrix, as a tensor."""
        return self.flat  # type: ignore[return-value]


def padded(batch: Batch, width: int, capacity: int) -> dict[str, np.ndarray]:
    """Return the arrays of a batch, with its last count repeated up to a capacity."""
    more = capacity - len(batch.inputs)
    arrays = {field.name: getattr(batch, field.name) for field in fields(Batch)}
    arrays["flat"] = batch.positions(width)
    for name in ("indices", "counts", "flat"):
        arrays[name] = np.concatenate([arrays[name], np.repeat(arrays[name][-1:], more)])
    arrays["inputs"] = np.concatenate([batch.inputs, np.zeros(more, np.float32)])
    arrays["indptr"] = np.append(batch.indptr[:-1], capacity)
    return arrays


@contextmanager
def no_collection() -> Iterator[None]:
    """Let no garbage be collected: freeing another recording, or a stream, ends one that is under way."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class Recorded:
    """A step that is replayed for batches of one number of rows, and taken as it is for others."""

    def __init__(self, step: Step, rows: int, width: int, device: torch.device) -> None:
        self.step, self.rows, self.width, self.device = step, rows, width, device
        self.taken, self.most = 0, 0
        self.stream = torch.cuda.Stream(device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def forget(self) -> None:
        """Record anew, as a constant of the step has changed."""
        self.graph = None

    def __call__(self, batch: Batch, noise: np.ndarray, kl_weight: float, n: int) -> Tensor:
        """Take a step; the loss returned is overwritten by the next."""
        n_counts = len(batch.inputs)
        self.most = max(self.most, n_counts)
        if batch.n != self.rows or n_counts == 0 or self.taken < WARM_UP:
            return self._one_by_one(batch, noise, kl_weight)
        if self.graph is None:
            self._record(batch, noise, kl_weight)
        if n_counts > self.capacity:
            return self._one_by_one(batch, noise, kl_weight)
        self._fill(batch, noise, kl_weight)
        self.graph.replay()  # type: ignore[union-attr]
        return self.loss

    def _one_by_one(self, batch: Batch, noise: np.ndarray, kl_weight: float) -> Tensor:
        """Take a step on the stream that the recording uses too."""
        self.taken += 1
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            loss = self.step(batch, noise, kl_weight, batch.n)
        current.wait_stream(self.stream)
        return loss

    def _record(self, batch: Batch, noise: np.ndarray, kl_weight: float) -> None:
        self.capacity = int(SPARE * self.most)
        arrays = padded(batch, self.width, self.capacity)
        self.buffers = Buffers(**{name: torch.tensor(v, device=self.device) for name, v in arrays.items()})  # type: ignore[arg-type]
        self.noise = torch.tensor(noise, device=self.device)
        self.kl_weight = torch.tensor(kl_weight, dtype=torch.float64, device=self.device)
        graph = torch.cuda.CUDAGraph()
        with no_collection(), torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            self.loss = self.step(self.buffers, self.noise, self.kl_weight, self.rows)
        self.graph = graph

    def _fill(self, batch: Batch, noise: np.ndarray, kl_weight: float) -> None:
        for name, value in padded(batch, self.width, self.capacity).items():
            getattr(self.buffers, name).copy_(torch.as_tensor(value).pin_memory(), non_blocking=True)
        self.noise.copy_(torch.as_tensor(noise).pin_memory(), non_blocking=True)
        self.kl_weight.fill_(kl_weight)
