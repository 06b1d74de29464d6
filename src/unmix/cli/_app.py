"""The shell command: subcommands, how they speak, and how they fail."""

import logging
import sys
import warnings
from typing import Any, TextIO

import cyclopts

from unmix import __version__
from unmix._settings import set_verbosity
from unmix.cli._archetypes import archetypes
from unmix.cli._autoencoder import autoencoder, zinb_ae
from unmix.cli._deconvolve import deconvolve
from unmix.cli._demo import demo
from unmix.cli._factorization import factorize, metagenes
from unmix.cli._files import FileProblem
from unmix.cli._fitted import denoise, transform
from unmix.cli._info import info
from unmix.cli._joint_nmf import joint_nmf
from unmix.cli._recover_counts import recover_counts
from unmix.cli._report import report
from unmix.cli._signatures import signatures

app = cyclopts.App(
    name="unmix",
    suppress_keyboard_interrupt=False,
    help="Take tissue apart: which cell types, programs or archetypes make up these measurements, and how much of each.",
    version=__version__,
    default_parameter=cyclopts.Parameter(negative_iterable=()),
)
app.command(archetypes)
app.command(autoencoder)
app.command(deconvolve)
app.command(demo)
app.command(denoise)
app.command(factorize)
app.command(info)
app.command(metagenes)
app.command(joint_nmf)
app.command(recover_counts)
app.command(report)
app.command(signatures)
app.command(transform)
app.command(zinb_ae)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; problems with the input end it with one line and exit code 1, wrong usage with 2."""
    set_verbosity("INFO" if sys.stderr.isatty() else "WARNING")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = _show_warning
        try:
            app(arguments, exit_on_error=False, print_error=True)
        except cyclopts.CycloptsError as wrong:
            if isinstance(wrong, cyclopts.UnusedCliTokensError):
                sys.stderr.write(
                    "unmix: if these are more values of an option, name it before each: --genes A --genes B.\n"
                )
            raise SystemExit(2) from wrong
        except (FileProblem, ValueError, KeyError, TypeError, OSError) as problem:
            if logging.getLogger("unmix").isEnabledFor(logging.DEBUG):
                raise
            text = problem.args[0] if isinstance(problem, KeyError) and problem.args else problem
            sys.stderr.write(f"unmix: {' '.join(str(text).split())}\n")
            raise SystemExit(1) from problem
        except KeyboardInterrupt:
            sys.stderr.write("unmix: interrupted; no file was changed.\n")
            raise SystemExit(130) from None


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> Any:
    """Say our own warnings in one line; leave those of libraries out."""
    if category.__module__.startswith("unmix"):
        sys.stderr.write(f"unmix: warning: {message}\n")
