"""The process that runs cases, one after the other."""

import traceback
from pathlib import Path
from random import Random
from typing import Any

from . import calls
from .judge import Defect, judge


def work(seed: int, numbers: list[int], seconds: float, folder: str, queue: Any) -> None:
    """Run cases in a process of their own, and tell what happened after each."""
    import matplotlib as mpl

    mpl.use("agg")
    calls.results()  # compiles, before the clock runs
    for number in numbers:
        queue.put((number, "?", "started", ""))
        label = "?"
        try:
            case = calls.draw(Random(f"{seed}:{number}"), Path(folder))
            label = case.label
            outcome, told = judge(case.call, case.inputs(), case.answer, seconds), ""
        except Defect as defect:
            outcome, told = "defect", str(defect)
        except Exception:  # noqa: BLE001
            outcome, told = "defect", "the fuzzer itself: " + traceback.format_exc()
        queue.put((number, label, outcome, told))
