"""Package-wide settings: one logger, one progress bar, the number of threads."""

import logging
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

logger = logging.getLogger("unmix")
logger.addHandler(logging.NullHandler())


@dataclass
class Settings:
    """What applies to every call unless the call says otherwise.

    Parameters
    ----------
    n_jobs
        Threads per call; `None` takes every processor this process may use.
    progress
        Whether a call of more than `progress_delay` seconds shows a progress bar with the remaining time.
        `None` shows it on a terminal and in a notebook, and stays silent in a pipe.
    progress_delay
        Seconds before a progress bar appears.
    check_counts
        Whether tools that model counts warn where they are given something else.

    Examples
    --------
    >>> import unmix as um
    >>> um.settings.progress = False
    >>> um.settings.progress = None
    """

    n_jobs: int | None = None
    progress: bool | None = None
    progress_delay: float = 3.0
    check_counts: bool = True

    def threads(self, n_jobs: int | None = None) -> int:
        """Return the number of threads for one call.

        Parameters
        ----------
        n_jobs
            The call's own wish: a number >= 1, -1 for every processor, or `None` for the setting.

        Raises
        ------
        ValueError
            If `n_jobs` is neither -1 nor at least 1.

        Examples
        --------
        >>> Settings(n_jobs=4).threads(), Settings(n_jobs=4).threads(2)
        (4, 2)
        """
        wanted = self.n_jobs if n_jobs is None else n_jobs
        if wanted is None or wanted == -1:
            return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
            msg = f"`n_jobs` must be -1, None or an integer >= 1, got {wanted!r}."
            raise ValueError(msg)
        return wanted


settings = Settings()


def set_verbosity(level: int | str) -> None:
    """Write the log of this package to standard error, from `level` on.

    Parameters
    ----------
    level
        A level of :mod:`logging`, by name or number; `"WARNING"` silences the log of each call.

    Examples
    --------
    >>> import unmix as um
    >>> um.set_verbosity("WARNING")
    """
    if not any(isinstance(h, logging.StreamHandler) for h in logger.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
    logger.setLevel(level)


def progress(items: Iterable[T], *, total: int | None = None, desc: str = "") -> Iterable[T]:
    """Wrap `items` in the one progress bar: remaining time, late to appear, silent when not wanted."""
    if not (_is_watched() if settings.progress is None else settings.progress):
        return items
    from tqdm import tqdm

    return tqdm(items, total=total, desc=desc, delay=settings.progress_delay, leave=False)


def _is_watched() -> bool:
    """Say whether standard error is a terminal, or a notebook's, which is read by somebody although it is none."""
    isatty = getattr(sys.stderr, "isatty", None)
    return type(sys.stderr).__module__.startswith("ipykernel") or (isatty is not None and isatty())
