"""Region-specific gene sets of a pancreatic cancer against archetypes: are they enriched in their region.

Run:  python benchmarks/archetypes_regions.py
Data: `st_pdac_a` (Moncada et al., Nat. Biotechnol. 38, 2020) with four regions that a pathologist drew, and marker lists. For
every set whose region is known: the archetype it is matched to, and how well the archetype's weight, and the set's share
among the proportions, tell the spots of the region from all others (area under the ROC curve).
"""

import json
import sys
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

import unmix as um

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "st_pdac_a"
REGIONS = {
    "Cancer_clone_A": "Cancer",
    "Cancer_clone_B": "Cancer",
    "Ductal_CRISP3_high-centroacinar_like": "Duct Epithelium",
    "Ductal_terminal_ductal_like": "Duct Epithelium",
    "Acinar_cells": "Pancreatic",
}


def main() -> None:
    warnings.simplefilter("ignore")
    if not FOLDER.is_dir():
        sys.stdout.write("the data is not here\n")
        return
    spots = ad.read_h5ad(FOLDER / "spatial.h5ad")
    sets = json.loads((FOLDER / "marker_list.json").read_text())
    um.tl.starfysh_archetypes(spots, signatures=sets)
    matching = um.get.archetypes(spots, what="matching").astype({"type": str, "archetype": str}).set_index("type")
    W, shares = um.get.archetypes(spots), um.get.archetypes(spots, what="proportions")
    region = spots.obs["region"].astype(str).to_numpy()
    known = spots.obs["region"].notna().to_numpy()
    rows = {}
    for name, place in REGIONS.items():
        partner = matching.loc[name, "archetype"]
        inside = region[known] == place
        weight = roc_auc_score(inside, W[partner][known]) if partner != "none" else np.nan
        rows[name] = {
            "region": place, "spots": int(inside.sum()), "archetype": partner, "q": matching.loc[name, "qval"],
            "AUC of W": weight, "AUC of share": roc_auc_score(inside, shares[name][known]),
        }  # fmt: skip
    status = spots.obs["archetypes_status"].value_counts().to_dict()
    matched = int((matching["archetype"] != "none").sum())
    sys.stdout.write(f"{W.shape[1]} archetypes, {matched} of {len(sets)} sets matched, spots: {status}\n")
    sys.stdout.write(pd.DataFrame(rows).T.to_string(float_format="{:.3g}".format) + "\n")


if __name__ == "__main__":
    main()
