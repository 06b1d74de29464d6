"""What a call with hostile input may do: give a right answer or one of our own errors, and leave its input alone."""

import linecache
import signal
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.same import difference, fingerprint

import unmix
from unmix.cli._files import FileProblem

SOURCE = str(Path(unmix.__file__).parent)
OWN = (ValueError, TypeError, KeyError, FileProblem, ImportError, OSError)


class Defect(Exception):
    """What must not happen."""


class Hung(BaseException):
    """A call took too long; nothing in the library may catch it."""


def judge(case: Any, seconds: float) -> str:
    """Run a case and return "answer" or the name of our own error; raise Defect for all else."""
    given = case.inputs()
    before = {name: fingerprint(value) for name, value in given.items()}
    with warnings.catch_warnings(record=True) as warned, time_limit(seconds):
        warnings.simplefilter("always")
        try:
            result = case.call()
        except OWN as error:
            outcome = type(error).__name__
            check_error(error)
        except Hung:
            raise Defect(f"no answer in {seconds} s") from None
        except BaseException as error:
            raise Defect(f"{type(error).__name__}: {error}{_where(error)}") from error
        else:
            outcome = "answer"
    for warning in warned:
        foreign = not warning.category.__module__.startswith("unmix")
        if foreign and (issubclass(warning.category, RuntimeWarning) or warning.filename.startswith(SOURCE)):
            raise Defect(f"{warning.category.__name__}: {warning.message} ({warning.filename}:{warning.lineno})")
    for name, value in given.items() if outcome != "answer" or not getattr(case, "replaces", False) else ():
        changed = difference(before[name], fingerprint(value), added=outcome == "answer")
        if changed:
            raise Defect(f"after {outcome}, {name} is no longer as it was: {changed}")
    if outcome == "answer":
        case.answer(result)
    return outcome


def check_error(error: BaseException) -> None:
    """Refuse errors that come from inside a library or from a slip of our own, and messages that say nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    raised = linecache.getline(last.filename, last.lineno or 0).strip().startswith("raise")
    if not last.filename.startswith(SOURCE) or not raised:
        raise Defect(f"not our own error: {type(error).__name__}: {error}{_where(error)}") from error
    if len(str(error)) < 15:
        raise Defect(f"the message says nothing: {error!r}{_where(error)}") from error


def _where(error: BaseException) -> str:
    ours = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(SOURCE)]
    places = [f"{f.filename.removeprefix(SOURCE)}:{f.lineno} {f.line}" for f in ours[-2:]]
    return "".join(f"\n    {place}" for place in places)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt Python code that takes longer: so many seconds of the processor, or ten times as many on the clock."""

    def stop(*_: Any) -> None:
        raise Hung

    clocks = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, 10 * seconds))
    old = [signal.signal(number, stop) for number, _, _ in clocks]
    for _, timer, limit in clocks:
        signal.setitimer(timer, limit, 1.0)  # again, should the first fall into a callback that swallows it
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(clocks, old, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)
