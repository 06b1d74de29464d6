"""What genes do in archetypes and their communities: profiles, community means, markers."""

from dataclasses import dataclass

import numpy as np

from unmix.core.markers import Markers, rank_streamed
from unmix.core.scaled import GeneMoments, ScaledRows, cross_product, gene_moments


@dataclass(frozen=True)
class GeneTable:
    """Log-normalised expression of all genes by archetype."""

    moments: GeneMoments
    profiles: np.ndarray
    """K x genes: the regression of genes on W, where it is positive."""
    community_means: np.ndarray
    """genes x K."""
    markers: Markers


def describe_genes(Y: ScaledRows, W: np.ndarray, member: np.ndarray, fitted: np.ndarray, *, n_jobs: int) -> GeneTable:
    """Return what genes do in the rows that archetypes were fitted to."""
    rows = np.flatnonzero(fitted)
    Y_log, W, member = Y.take(rows).logged(), W[rows], member[rows]
    moments = gene_moments(Y_log, n_jobs=n_jobs)
    share = member / np.maximum(member.sum(axis=0), 1)
    cross = cross_product(Y_log, np.hstack([W, share]), n_jobs=n_jobs)
    K = W.shape[1]
    gram = W.T @ W
    ridge = 1e-9 * np.trace(gram) * np.eye(K)
    profiles = np.maximum(np.linalg.solve(gram + ridge, cross[:, :K].T), 0.0)
    return GeneTable(moments, profiles, cross[:, K:], rank_streamed(Y_log, member, moments.expressed))
