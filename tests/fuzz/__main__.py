"""`python -m tests.fuzz`: hostile cases until their number or the time is used up; exit code 1 if there are defects."""

import argparse
import collections
import json
import multiprocessing
import queue as queue_module
import sys
import tempfile
import time
from pathlib import Path

from .worker import work

STALL, SETUP = 300.0, 900.0
"""Seconds after which a worker that does not answer is ended."""


def main() -> None:
    """Supervise the worker; one that hangs or dies is a defect, and the next goes on after it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--budget", type=float, default=3600.0, help="seconds altogether")
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds of the processor per case")
    parser.add_argument("--files", type=float, default=0.25, help="share of the cases that are files")
    parser.add_argument("--log", type=Path, help="file for one JSON line per defect")
    options = parser.parse_args()
    outcomes: collections.Counter[str] = collections.Counter()
    kinds: dict[str, list[tuple[int, str]]] = {}
    start, numbers = time.monotonic(), list(range(options.first, options.first + options.cases))
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        while numbers and time.monotonic() - start < options.budget:
            queue = context.Queue()
            worker = context.Process(
                target=work, args=(options.seed, numbers, options.seconds, options.files, folder, queue)
            )
            worker.start()
            number, label, heard = numbers[0], "?", time.monotonic() + SETUP
            while numbers and time.monotonic() - start < options.budget:
                try:
                    number, label, outcome, told = queue.get(timeout=1.0)
                except queue_module.Empty:
                    if worker.is_alive() and time.monotonic() - heard < STALL:
                        continue
                    outcome, told = "defect", f"the process {'hung' if worker.is_alive() else 'died'}"
                heard = time.monotonic()
                if outcome == "started":
                    continue
                outcomes[outcome] += 1
                if outcome == "defect":
                    kinds.setdefault(_kind(told), []).append((number, label))
                    if options.log:
                        with options.log.open("a") as file:
                            file.write(json.dumps({"case": number, "label": label, "defect": told}) + "\n")
                numbers = numbers[numbers.index(number) + 1 :]
                if told.startswith("the process"):
                    break
            worker.kill()
            worker.join()
    for kind, cases in sorted(kinds.items(), key=lambda item: -len(item[1])):
        sys.stdout.write(f"{len(cases)} x {kind}\n" + "".join(f"    case {n}: {label}\n" for n, label in cases[:2]))
    total = sum(outcomes.values())
    told = ", ".join(f"{count} {name}" for name, count in outcomes.most_common())
    sys.stdout.write(f"{total} cases, seed {options.seed}, {time.monotonic() - start:.0f} s: {told}\n")
    sys.exit(1 if kinds or numbers else 0)


def _kind(told: str) -> str:
    """Return what defects of one kind have in common: the place, or the message without its numbers."""
    head, *places = told.split("\n")
    return f"{head[:140]}\n{places[-1]}" if places else head[:160]


if __name__ == "__main__":
    main()
