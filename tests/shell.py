"""What the tests of faults run in processes of their own."""

import os
import resource
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))


def finish(context: Any, target: Any, *args: Any) -> int:
    """Run a function in a process of its own and return its exit code."""
    process = context.Process(target=target, args=args)
    process.start()
    process.join(120)
    return process.exitcode


def command(arguments: list[str], folder: str, largest_file: int = 0, said: str = "") -> None:
    """Run a command of the shell in a folder, where files can be no larger than so many bytes (0: as they like)."""
    os.chdir(folder)
    from unmix.cli import main

    if said:
        sys.stderr = Path(said).open("w")  # noqa: SIM115
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    main(arguments)


def run_tool(tool: str, options: dict[str, Any], slot: str, out: str) -> None:
    """Run a tool on the data of the contract tests and keep one slot."""
    import contracts
    import numpy as np

    import unmix as um

    adata = contracts.counts()
    getattr(um.tl, tool)(adata, **options)
    np.save(out, adata.obsm[slot])


def download(url: str, sha256: str, cache: str) -> None:
    """Fetch a file into a cache."""
    import unmix as um

    um.datasets.fetch(url, sha256, cache=cache)
