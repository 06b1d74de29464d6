"""Enrichment of gene sets equals one linear regression after the other."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from unmix._adata.networks import network_weights
from unmix.core.enrichment import univariate


def test_slopes_are_those_of_linear_regression():
    r = np.random.default_rng(0)
    scores, weights = r.standard_normal((3, 200)), r.standard_normal((200, 4)) * (r.random((200, 4)) < 0.1)
    found = univariate(scores, sparse.csc_array(weights))
    for c in range(3):
        for j in range(4):
            fit = stats.linregress(weights[:, j], scores[c])
            np.testing.assert_allclose(found.t[c, j], fit.slope / fit.stderr)
            np.testing.assert_allclose(found.p[c, j], fit.pvalue)
    np.testing.assert_allclose(found.q.ravel(), stats.false_discovery_control(found.p.ravel()))


def test_a_set_of_no_or_all_genes_says_nothing():
    found = univariate(np.arange(6.0)[None], sparse.csc_array(np.ones((6, 1)) * [0, 1]))
    assert np.all(found.t == 0)
    assert np.all(found.p == 1)
    assert np.all(found.q == 1)


def test_sets_that_say_nothing_do_not_make_the_others_less_significant():
    r = np.random.default_rng(1)
    scores, weights = r.standard_normal((2, 50)), r.random((50, 3)) < 0.2
    alone = univariate(scores, sparse.csc_array(weights))
    beside = univariate(np.vstack([scores, np.ones(50)]), sparse.csc_array(np.hstack([weights, np.zeros((50, 4))])))
    np.testing.assert_array_equal(beside.q[:2, :3], alone.q)


def test_networks_are_tables_or_sets():
    genes = pd.Index([f"g{i}" for i in range(10)])
    table = pd.DataFrame({"source": list("aaab"), "target": ["g1", "g5", "x", "g2"], "weight": [1, -2.0, 1, 1]})
    names, weights = network_weights(table, genes, min_targets=2)
    assert names == ["a"]
    assert weights.toarray().ravel().tolist() == [0, 1, 0, 0, 0, -2, 0, 0, 0, 0]
    same = network_weights({"a": ["g1", "g5", "x"]}, genes, min_targets=2)[1]
    np.testing.assert_array_equal(same.toarray(), np.abs(np.sign(weights.toarray())))
    with pytest.raises(ValueError, match="no set of `net` has 3 genes"):
        network_weights(table, genes, min_targets=3)
    with pytest.raises(ValueError, match="twice"):
        network_weights(pd.concat([table, table]), genes)
    with pytest.raises(ValueError, match="columns source and target"):
        network_weights(table.rename(columns={"source": "set"}), genes)
    with pytest.raises(ValueError, match="finite"):
        network_weights(table.assign(weight=np.nan), genes)
    with pytest.raises(TypeError, match="`net` must be a table"):
        network_weights(["g1"], genes)
