"""Every slot name, once: keys in an AnnData follow from a tool's `key_added` by adding one of these endings."""

SE = "_se"
SIGNATURE = "_signature"
CORRELATION = "_correlation"
RMSE = "_rmse"
PVAL = "_pval"
QVAL = "_qval"
STATUS = "_status"
UNEXPLAINED = "_unexplained"
DETECTION = "_detection"
UNKNOWN = "_unknown"
MISFIT = "_misfit"
CELLS = "_cells"

VARIANCE = "_variance"
LOG_FOLD_CHANGE = "_logfc"
Q_VALUES = "_qvals"
MARKER = "_marker"

PROPORTIONS = "_proportions"
ANCHOR = "_anchor"
EMBEDDING = "X_"
SCORE = "_score"
SPECIFIC = "_specific"
ALIGNED = "_aligned"
DISPERSION = "_dispersion"
NLL = "_nll"
DENOISED = "_denoised"
DROPOUT = "_dropout"
ZERO_INFLATION = "_zero_inflation"
POWER = "_zero_inflation_power"
SAMPLES = "_samples"
UNIT = "_unit"
COMPLETED = "_completed"

DEFAULTS = ("deconvolve", "archetypes", "nmf", "als", "svd", "metagenes", "joint_nmf", "ae", "vae", "zinb_ae")
"""Names of results that are not given one."""


def column_names(names: list[str]) -> list[str]:
    """Return the names under which columns are stored: `/` becomes `_`, and clashes are numbered.

    Examples
    --------
    >>> column_names(["Mitral/Tufted cells", "B", "Mitral_Tufted cells"])
    ['Mitral_Tufted cells_2', 'B', 'Mitral_Tufted cells']
    """
    taken = {name for name in names if "/" not in name}
    stored: list[str] = []
    for name in names:
        base = candidate = name.replace("/", "_")
        number = 1
        while candidate != name and candidate in taken:
            number += 1
            candidate = f"{base}_{number}"
        taken.add(candidate)
        stored.append(candidate)
    return stored
