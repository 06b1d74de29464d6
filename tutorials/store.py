"""Run tutorials and store them with their outputs: `python tutorials/store.py [NAME...]`.

Pictures are stored in 256 colours, progress bars are left out; any other output on standard error is refused.
"""

import base64
import io
import os
import sys
from pathlib import Path

import nbclient
import nbformat
from PIL import Image

FOLDER = Path(__file__).resolve().parent


def main(names: list[str]) -> None:
    """Run and store the tutorials of these names, or all."""
    paths = [FOLDER / f"{name}.ipynb" for name in names] or sorted(FOLDER.glob("*.ipynb"))
    for path in paths:
        notebook = nbformat.read(path, 4)
        start = os.times()
        nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(FOLDER)}}).execute()
        for cell in notebook.cells:
            cell.metadata.clear()
            if cell.cell_type == "code":
                cell.outputs = [kept(output) for output in cell.outputs if not is_progress(output)]
        nbformat.write(notebook, path)
        end = os.times()
        cpu = end.children_user + end.children_system - start.children_user - start.children_system
        sys.stdout.write(f"{path.stem}: {cpu:.0f} CPU seconds, {end.elapsed - start.elapsed:.0f} s\n")


def is_progress(output: dict) -> bool:
    """Say whether this is a progress bar, or what is left of one that was wiped out."""
    text = output.get("text", "").replace("\x1b[A", "")
    return output.get("name") == "stderr" and ("\r" in text or "%|" in text or not text.strip())


def kept(output: dict) -> dict:
    """Return an output as it is stored."""
    if output.get("name") == "stderr":
        msg = f"a reader should not see this: {output['text'][:500]}"
        raise ValueError(msg)
    data = output.get("data", {})
    if "image/png" in data:
        small = io.BytesIO()
        picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
        picture.quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
        data["image/png"] = base64.b64encode(small.getvalue()).decode()
    return output


if __name__ == "__main__":
    main(sys.argv[1:])
