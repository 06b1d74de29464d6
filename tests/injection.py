"""An error at the n-th step of a call: steps are calls of functions, and returns from them, in our code and below."""

import gc
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import unmix

SOURCE = str(Path(unmix.__file__).parent)


class Injected(BaseException):
    """What is raised; like KeyboardInterrupt, nothing catches it by accident."""


def interrupted(at: int, call: Callable[[], Any]) -> bool:
    """Make a call that is interrupted at a step; return False if it ended before that step."""
    try:
        Steps(at).run(call)
    except Injected:
        return True
    return False


class Steps:
    """Count the steps of a call, and raise at one of them.

    Parameters
    ----------
    at
        Number of the step at which to raise; `None` only counts.
    below
        Name of a function of ours: while it runs, steps of all libraries count too.
    """

    def __init__(self, at: int | None = None, below: str = "write_all") -> None:
        self.at, self.below = at, below
        self.count = 0
        self.window: list[int] = []
        """Steps at which the function `below` began and ended."""
        self.depth = 0

    def run(self, call: Callable[[], Any]) -> None:
        """Make the call; raise `Injected` if the step is reached.

        No garbage is collected meanwhile: what is taken down then is no step of the call.
        """
        gc.disable()
        sys.setprofile(self._step)
        try:
            call()
        finally:
            sys.setprofile(None)
            gc.enable()

    def _step(self, frame: FrameType, event: str, _: Any) -> None:
        ours = frame.f_code.co_filename.startswith(SOURCE)
        if ours and frame.f_code.co_name == self.below and event in ("call", "return"):
            self.depth += 1 if event == "call" else -1
            self.window.append(self.count)
        if (not ours and not self.depth) or frame.f_code.co_flags & inspect.CO_GENERATOR:
            return  # what is raised while a generator is taken down is lost
        if self.count == self.at:
            self.at = None
            raise Injected
        self.count += 1
