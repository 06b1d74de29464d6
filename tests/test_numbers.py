"""For one seed every tool gives the same bits in two fresh processes."""

import subprocess
import sys
from pathlib import Path

CODE = """
import sys, warnings
sys.path.insert(0, sys.argv[1])
warnings.simplefilter("ignore")
import contracts, same
for name, case in contracts.TOOLS.items():
    adata = case.data()
    case.run(adata, n_jobs=int(sys.argv[2]))
    for entry in adata.uns.values():
        entry.get("params", {}).pop("n_jobs", None)
    print(name, same.fingerprint(adata))
"""


def test_two_fresh_processes_on_one_thread_and_on_two_give_the_same_bits():
    folder = str(Path(__file__).parent)
    said = [
        subprocess.run([sys.executable, "-c", CODE, folder, jobs], capture_output=True, text=True, check=True).stdout
        for jobs in ("1", "2")
    ]
    assert said[0].count("\n") > 15
    for first, second in zip(*(text.splitlines() for text in said), strict=True):
        assert first == second, first.split()[0]
