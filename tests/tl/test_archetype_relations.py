"""`tl.starfysh_archetypes`: what gene sets must not change, or must."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import unmix as um
from unmix._adata.signatures import SignatureWarning

TYPES = ["A", "B", "C"]


@pytest.fixture(scope="module")
def tissue():
    """Mixtures of three types, 150 genes, ten markers each; and ten genes of which nothing was counted."""
    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.5, 1.0, (3, 150))
    for t in range(3):
        profiles[:, 10 * t : 10 * (t + 1)] = 0.02
        profiles[t, 10 * t : 10 * (t + 1)] = 3.0
    shares = rng.dirichlet(np.full(3, 0.4), 200)
    X = rng.poisson(1500 * shares @ (profiles / profiles.sum(axis=1, keepdims=True)))
    names = [f"gene_{g}" for g in range(150)] + [f"silent_{g}" for g in range(10)]
    adata = ad.AnnData(sparse.csr_matrix(np.hstack([X, np.zeros((200, 10))])), var=pd.DataFrame(index=names))
    return adata, {name: names[10 * t : 10 * (t + 1)] for t, name in enumerate(TYPES)}


def shares(adata, sets):
    return um.tl.starfysh_archetypes(adata, 3, signatures=sets, resolution=None, copy=True).obsm[
        "archetypes_proportions"
    ]


def test_a_type_of_whose_genes_nothing_was_counted_has_no_share(tissue):
    """It once got 5% of the tissue, and up to .7 of a spot: it stood for whatever the other types left over."""
    adata, sets = tissue
    with pytest.warns(SignatureWarning, match="no share: absent"):
        found = shares(adata, {**sets, "absent": [f"silent_{g}" for g in range(10)]})
    assert not found["absent"].any()
    np.testing.assert_allclose(found[TYPES], shares(adata, sets), atol=1e-12)
    with pytest.raises(ValueError, match="no observation has a count"):
        shares(adata, {"absent": ["silent_1"]})


def test_order_names_and_units_of_sets_do_not_matter(tissue):
    adata, sets = tissue
    one = shares(adata, sets)
    weights = pd.DataFrame(0.0, index=adata.var_names, columns=TYPES)
    for name, genes in sets.items():
        weights.loc[genes, name] = 7.0
    renamed = {f"{name}/+": [*reversed(genes), genes[0]] for name, genes in sets.items()}
    np.testing.assert_allclose(shares(adata, weights), one, atol=1e-9)
    np.testing.assert_allclose(shares(adata, renamed), one, atol=1e-9)
    np.testing.assert_allclose(shares(adata, dict(reversed(sets.items())))[TYPES], one, atol=0.02)


def test_a_set_given_twice_shares_what_it_had(tissue):
    adata, sets = tissue
    one, two = shares(adata, sets), shares(adata, {**sets, "again": sets["A"]})
    np.testing.assert_allclose(two["A"] + two["again"], one["A"], atol=0.05)


def test_names_of_types_are_theirs_alone(tissue):
    """Two columns of one name were stored once, which no file takes, or one of two types was lost."""
    adata, sets = tissue
    found = shares(adata, {"novel_1": sets["A"], "novel_3": sets["B"]})
    assert list(found.columns) == ["novel_1", "novel_3", "novel_2"]
    weights = pd.DataFrame(1.0, index=sets["A"], columns=["A", "A"])
    for twice in ({1: sets["A"], "1": sets["B"]}, weights):
        with pytest.raises(ValueError, match="more than once"):
            shares(adata, twice)


def test_weights_without_bounds_are_refused(tissue):
    adata, sets = tissue
    with pytest.raises(ValueError, match="finite and non-negative"):
        shares(adata, pd.DataFrame(np.inf, index=sets["A"], columns=["A"]))


def test_marks_of_genes_that_are_text_are_refused(tissue):
    """The text "False" is true: all genes were taken."""
    adata = tissue[0].copy()
    marked = np.arange(adata.n_vars) < 60
    adata.var["highly_variable"] = np.where(marked, "True", "False")
    with pytest.raises(ValueError, match="must hold True and False"):
        um.tl.starfysh_archetypes(adata, 3, n_restarts=1)
    for flags in (marked.astype(int), marked.astype(float), pd.Categorical(marked), marked.astype(object)):
        adata.var["highly_variable"] = flags
        um.tl.starfysh_archetypes(adata, 3, n_restarts=1)
        assert set(adata.uns["archetypes"]["reduction"]["genes"]) == set(adata.var_names[marked])
