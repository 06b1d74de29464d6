"""Hostile input, drawn by hypothesis: 300 of the cases that `python -m tests.fuzz` runs by the ten thousand."""

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz import calls, files
from tests.fuzz.judge import judge

SECONDS = 30.0
common = settings(
    derandomize=True, deadline=None, database=None, print_blob=False,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore")  # the judge looks at warnings itself


@pytest.fixture(scope="module", autouse=True)
def prepared(tmp_path_factory):
    import matplotlib as mpl

    mpl.use("agg")
    files.originals()  # imports and compiles, before any clock runs
    with contextlib.chdir(tmp_path_factory.mktemp("here")):  # where files without a folder go
        yield


@settings(common, max_examples=220)
@given(st.randoms(use_true_random=False))
def test_every_function_answers_rightly_or_refuses_in_its_own_words(random):
    with tempfile.TemporaryDirectory() as folder:
        case = calls.draw(random, Path(folder))
        judge(case, SECONDS)


@settings(common, max_examples=80)
@given(st.randoms(use_true_random=False))
def test_every_file_is_read_or_refused_in_our_own_words(random):
    with tempfile.TemporaryDirectory() as folder:
        case = files.draw(random, Path(folder))
        judge(case, SECONDS)
