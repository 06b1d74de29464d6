"""Finished runs that are kept in a folder: one that is damaged is named and made again."""

import numpy as np
import pytest
from scipy import sparse

from unmix._adata.runs import Run, RunFolder


def cut(content):
    return content[: len(content) // 2]


def empty(content):
    return b""


def flipped(field, bit):
    """Flip a bit of the first member's header, and of its entry in the directory, which begins two bytes later."""

    def damage(content):
        content = bytearray(content)
        for sign, at in ((b"PK\x03\x04", field), (b"PK\x01\x02", field + 2)):
            content[content.index(sign) + at] ^= 1 << bit
        return bytes(content)

    return damage


ENCRYPTED, STRONGLY_ENCRYPTED, DEFLATED, UNKNOWN = flipped(6, 0), flipped(6, 6), flipped(8, 3), flipped(8, 1)


@pytest.mark.parametrize("damage", [cut, empty, ENCRYPTED, STRONGLY_ENCRYPTED, DEFLATED, UNKNOWN])
def test_a_damaged_run_is_made_again(tmp_path, damage, caplog):
    folder = RunFolder(tmp_path, sparse.csr_array(np.ones((3, 4))), "options")
    run = Run(np.ones((2, 4)), np.arange(3), 0.5)
    for number in (0, 1):
        folder.keep(number, run)
    assert sorted(folder.finished()) == [0, 1]
    file = folder.path / "run1.npz"
    file.write_bytes(damage(file.read_bytes()))
    assert sorted(folder.finished()) == [0]
    assert "run1.npz is damaged and is made again" in caplog.text
