"""scVI beside ours, where scvi-tools is installed: time per epoch, and how well it predicts cells it has not seen."""

import logging
import time
import warnings
from collections.abc import Callable

import anndata as ad
import numpy as np
import torch
from scipy import sparse


class ScVI:
    """An SCVI model on a count matrix, trained in steps of epochs."""

    def __init__(self, X: sparse.csr_matrix, *, n_latent: int = 10, seed: int = 0) -> None:
        warnings.filterwarnings("ignore")
        logging.disable(logging.WARNING)
        import scvi

        scvi.settings.seed = seed
        self.scvi, self.adata = scvi, ad.AnnData(X.astype(np.float32))
        scvi.model.SCVI.setup_anndata(self.adata)
        self.model = scvi.model.SCVI(self.adata, n_latent=n_latent)

    def train(
        self, epochs: int, *, lr: float = 1e-3, warmup: int | None = 400, on_epoch: Callable[[], None] = lambda: None
    ) -> "ScVI":
        """Train on nine tenths of the cells, with scVI's own defaults unless said."""
        import lightning.pytorch as pl

        class Clock(pl.Callback):
            def on_train_epoch_end(self, *_: object) -> None:
                on_epoch()

        self.model.train(
            max_epochs=epochs, train_size=0.9, accelerator="cpu", enable_progress_bar=False, logger=False,
            callbacks=[Clock()], plan_kwargs={"lr": lr, "n_epochs_kl_warmup": warmup},
        )  # fmt: skip
        return self

    @torch.no_grad()
    def parameters(self, X: sparse.csr_matrix) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return log means, log dispersions and dropout logits of cells, at their posterior means."""
        module = self.model.module
        was = module.training
        module.eval()
        batch = torch.zeros(X.shape[0], 1, dtype=torch.long)
        found = module.inference(torch.tensor(X.toarray(), dtype=torch.float32), batch)
        px = module.generative(found["qz"].loc, found["library"], batch)["px"]
        module.train(was)
        return px.mu.double().log(), px.theta.double().log(), px.zi_logits.double()

    def latent(self) -> np.ndarray:
        """Return the posterior means of the cells trained on."""
        return self.model.get_latent_representation()

    def denoised(self) -> np.ndarray:
        """Return means at the cells' own totals."""
        return np.exp(
            np.concatenate([self.parameters(self.adata.X[i : i + 512])[0] for i in range(0, self.adata.n_obs, 512)])
        )


def cpu_seconds_per_epoch(X: sparse.csr_matrix, epochs: int) -> float:
    """Return the median CPU seconds of an epoch with scVI's defaults."""
    clock: list[float] = []
    ScVI(X).train(epochs, on_epoch=lambda: clock.append(time.process_time()))
    return float(np.median(np.diff(clock)))
