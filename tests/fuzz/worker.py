"""The process that runs cases, one after the other."""

import os
import traceback
from pathlib import Path
from random import Random
from typing import Any

from . import calls, files
from .judge import Defect, judge


def work(seed: int, numbers: list[int], seconds: float, share: float, folder: str, queue: Any) -> None:
    """Run cases in a process of their own, and tell what happened after each."""
    import matplotlib as mpl

    mpl.use("agg")
    os.chdir(folder)  # where files without a folder go
    files.originals()
    calls.warm_up()  # compiles, before the clock runs
    for number in numbers:
        queue.put((number, "?", "started", ""))
        label = "?"
        try:
            random = Random(f"{seed}:{number}")
            case = files.draw(random, Path(folder)) if random.random() < share else calls.draw(random, Path(folder))
            label = case.label
            queue.put((number, label, "started", ""))
            outcome, told = judge(case, seconds), ""
        except Defect as defect:
            outcome, told = "defect", str(defect)
        except Exception:  # noqa: BLE001
            outcome, told = "defect", "the fuzzer itself: " + traceback.format_exc()
        queue.put((number, label, outcome, told))
