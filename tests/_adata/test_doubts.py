"""Data that can be used and are not what they are taken for: what is said, and what is not."""

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import unmix as um
from unmix._adata.doubts import looks_like_logs
from unmix._adata.read import CountsWarning
from unmix._adata.signatures import SignatureWarning


@pytest.fixture(scope="module")
def tissue():
    return um.datasets.simulate_spots(30, 120, 3, cells_per_type=20, rng=0)


def cells_of(reference, name="cell_type"):
    return {"reference": reference, "groupby": name}


def test_data_and_tables_that_are_the_wrong_way_round_are_told(tissue):
    spots, reference = tissue
    signature = reference.to_df().groupby(reference.obs["cell_type"].astype(str)).mean().T
    with pytest.raises(ValueError, match=r"`adata\.T`"):
        um.tl.deconvolve(spots.T.copy(), **cells_of(reference))
    with pytest.raises(ValueError, match=r"`reference\.T`"):
        um.tl.deconvolve(spots.copy(), signature.T)
    with pytest.raises(TypeError, match=r"AnnData\(table\)"):
        um.tl.deconvolve(spots.to_df(), signature)


@pytest.mark.parametrize("whose", ["data", "reference"])
def test_the_column_that_holds_the_other_kind_of_names_is_told(tissue, whose):
    spots, reference = tissue[0].copy(), tissue[1].copy()
    changed = spots if whose == "data" else reference
    changed.var["symbol"] = changed.var_names
    changed.var_names = [f"ENSG{i:011d}" for i in range(changed.n_vars)]
    with pytest.raises(ValueError, match=rf"var\['symbol'\] of the {whose}"):
        um.tl.deconvolve(spots, **cells_of(reference))
    changed.var_names = changed.var["symbol"]
    um.tl.deconvolve(spots, **cells_of(reference))


@pytest.mark.parametrize(
    ("name", "what"),
    [("{}.7", "version at their end"), ("GRCh38_{}", "before the first `_`"), (" {} ", "blanks")],
)
def test_what_names_have_more_in_one_object_is_told_with_a_call_that_takes_it_off(tissue, name, what):
    spots, reference = tissue[0].copy(), tissue[1].copy()
    for x in (spots, reference):
        x.var_names = [f"ENSG{i:011d}" for i in range(x.n_vars)]
    spots.var_names = [name.format(gene) for gene in spots.var_names]
    with pytest.raises(ValueError, match=what) as told:
        um.tl.deconvolve(spots, **cells_of(reference))
    call = str(told.value).rsplit("`x.var_names = ")[1].split("`)")[0]
    spots.var_names = eval(call, {"x": spots})  # the call that is told
    um.tl.deconvolve(spots, **cells_of(reference))


@pytest.mark.parametrize("method", ["nnls", "nusvr_simplex"])
def test_logarithms_are_told_in_data_and_in_signatures(tissue, method, monkeypatch):
    spots, reference = tissue
    signature = reference.to_df().groupby(reference.obs["cell_type"].astype(str)).mean().T * 1e3
    bulk = ad.AnnData(spots.to_df() * 1e3 + 0.1)
    um.tl.deconvolve(bulk.copy(), signature, method=method)  # nothing to say
    with pytest.warns(CountsWarning, match="logarithms.*numpy.exp2"):
        um.tl.deconvolve(ad.AnnData(np.log2(bulk.to_df() + 1)), signature, method=method)
    with pytest.warns(SignatureWarning, match="the signature look like logarithms"):
        um.tl.deconvolve(bulk.copy(), np.log1p(signature), method=method)
    monkeypatch.setattr(um.settings, "check_counts", False)
    um.tl.deconvolve(bulk.copy(), np.log1p(signature), method=method)


def test_no_measured_data_are_taken_for_logarithms_and_all_of_their_logarithms_are(shared_data):
    """Spots, cells, antibodies; depth-normalised, as counts per 10,000 and per million."""
    for path in sorted(shared_data.glob("*/*.h5ad")):
        X = ad.read_h5ad(path)[:100].X.astype(np.float64)
        totals = np.maximum(np.asarray(X.sum(axis=1)).ravel(), 1)
        for target in (np.median(totals), 1e4, 1e6):
            values = X.multiply(target / totals[:, None]).tocsr().data
            assert not looks_like_logs(values), path
            assert looks_like_logs(np.log1p(values)), path


def test_missing_labels_that_became_text_are_told(tissue):
    spots, reference = tissue[0], tissue[1].copy()
    labels = reference.obs["cell_type"].astype(object)
    labels.iloc[::6] = np.nan
    reference.obs["missing"] = labels
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        um.tl.deconvolve(spots.copy(), **cells_of(reference, "missing"))
    reference.obs["text"] = [str(label) for label in labels]  # as `astype(str)` of older versions of pandas
    with pytest.warns(SignatureWarning, match=r"reference\.obs\['text'\] != 'nan'"):
        um.tl.deconvolve(spots.copy(), **cells_of(reference, "text"))


def test_sums_over_cells_are_told(tissue):
    spots, reference = tissue
    sums = reference.to_df().groupby(reference.obs["cell_type"].astype(str)).sum()
    aggregated = ad.AnnData(sums, obs=pd.DataFrame({"cell_type": sums.index}, index=sums.index))
    with pytest.warns(SignatureWarning, match="sums or means over cells .there is one for every type"):
        um.tl.deconvolve(spots.copy(), **cells_of(aggregated))
    noted = reference.copy()
    noted.obs["psbulk_n_cells"] = 30
    with pytest.warns(SignatureWarning, match="psbulk_n_cells"):
        um.tl.deconvolve(spots.copy(), **cells_of(noted))
