"""Passes on a cluster: the same numbers, few tasks, constants sent once, workers that are lost on the way."""

import os
import signal
import time

import numpy as np
import pytest
from scipy import sparse

from unmix.core import cluster as on_cluster
from unmix.core.blocks import iter_blocks, map_reduce_rows, map_rows, reduce_rows, stream_rows, take_rows

da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")

DENSE = np.random.default_rng(0).poisson(0.5, (53, 7)).astype(np.float32)
SIDE = np.random.default_rng(1).random((53, 3))
S = np.arange(14.0).reshape(7, 2)


def lazy(X, rows, columns=-1):
    return da.from_array(sparse.csr_matrix(X), chunks=(rows, columns), asarray=False)


def product_and_gram(block, side, S):
    return block @ S, (block.T @ side, float(block.sum()))


def slow_product(block, S):
    time.sleep(0.1)
    return block @ S


class Count(distributed.diagnostics.plugin.SchedulerPlugin):
    """Every task that the scheduler has seen."""

    def __init__(self):
        self.keys = set()

    def transition(self, key, start, finish, *args, **kwargs):
        self.keys.add(key)


@pytest.fixture
def counted(cluster):
    plugin = Count()
    cluster.scheduler.add_plugin(plugin, name="count")
    yield plugin.keys
    cluster.scheduler.remove_plugin(name="count")


def pids(client):
    return client.run(os.getpid)


@pytest.mark.parametrize("persisted", [False, True])
@pytest.mark.parametrize("block_rows", [None, 4])
def test_same_numbers_as_here(client, persisted, block_rows):
    X = lazy(DENSE, 10, 4)
    X = client.persist(X) if persisted else X
    W, (cross, total) = map_reduce_rows(product_and_gram, X, SIDE, constants=(S,), block_rows=block_rows)
    np.testing.assert_allclose(W, DENSE @ S, rtol=1e-12)
    np.testing.assert_allclose(cross, DENSE.T @ SIDE, rtol=1e-6)
    assert total == DENSE.sum()
    gram = reduce_rows(lambda b, a: b.T @ a, X, SIDE, block_rows=block_rows)
    np.testing.assert_allclose(gram, DENSE.T @ SIDE, rtol=1e-6)
    totals, side = map_rows(lambda b, a: (b.sum(axis=1), a), X, SIDE, block_rows=block_rows)
    np.testing.assert_allclose(totals, DENSE.sum(axis=1))
    np.testing.assert_array_equal(side, SIDE)
    parts = list(stream_rows(lambda b: b @ S, X, block_rows=block_rows))
    assert max(len(part) for part in parts) <= (block_rows or 10)
    np.testing.assert_allclose(np.concatenate(parts), DENSE @ S)


def test_rows_are_read_by_the_cluster(client):
    X = client.persist(lazy(DENSE, 10))
    np.testing.assert_array_equal(take_rows(X, np.array([3, 50])).toarray(), DENSE[[3, 50]])
    np.testing.assert_array_equal(np.vstack([block.toarray() for _, block in iter_blocks(X, 8)]), DENSE)


@pytest.mark.parametrize("persisted", [False, True])
def test_a_pass_over_many_chunks_has_few_tasks(client, counted, persisted):
    X = da.map_blocks(one_row, chunks=((1,) * 2000, (3,)), dtype=float, meta=np.zeros((0, 3)))
    expected = np.repeat(np.arange(2000.0)[:, None], 3, axis=1)
    if persisted:
        X = client.persist(X)
        distributed.wait(X)
    counted.clear()
    W, (total,) = map_reduce_rows(lambda b, s: (b @ s, (b.sum(),)), X, constants=(np.ones((3, 1)),))
    np.testing.assert_array_equal(W[:, 0], expected.sum(axis=1))
    assert total == expected.sum()
    assert on_cluster.MAX_TASKS <= len(counted) < 1000


def one_row(block_info=None):
    return np.full((1, 3), float(block_info[None]["chunk-location"][0]))


def test_constants_are_sent_once(client, monkeypatch):
    sent = []
    send = type(client).scatter

    def scatter(self, data, **options):
        sent.append(len(data))
        return send(self, data, **options)

    monkeypatch.setattr(type(client), "scatter", scatter)
    map_rows(lambda b, s: b @ s, lazy(DENSE, 5), constants=(S,))
    assert sent == [1]


def test_constants_are_sent_again_where_a_connection_breaks(client, monkeypatch):
    send, broken = type(client).scatter, [OSError("closed"), TimeoutError("no answer"), KeyError("tcp://127.0.0.1:1")]

    def scatter(self, data, **options):
        if broken:
            raise broken.pop()
        return send(self, data, **options)

    monkeypatch.setattr(type(client), "scatter", scatter)
    np.testing.assert_allclose(map_rows(lambda b, s: b @ s, lazy(DENSE, 20), constants=(S,)), DENSE @ S)


@pytest.mark.parametrize("victims", [1, 2])
def test_workers_that_are_killed_in_the_middle_of_a_pass(mortal, victims, caplog):
    X = lazy(np.tile(DENSE, (4, 1)), 10)
    workers = list(pids(mortal).values())
    parts = stream_rows(slow_product, X, constants=(S,))
    found = [next(parts)]
    for pid in workers[:victims]:
        os.kill(pid, signal.SIGKILL)
    found += list(parts)
    np.testing.assert_allclose(np.concatenate(found), np.tile(DENSE, (4, 1)) @ S)
    if victims == 2:
        assert "sending it again" in caplog.text


@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_that_is_killed_as_constants_are_sent(mortal, victim, monkeypatch):
    """The scheduler still takes it for alive."""
    workers, send = list(pids(mortal).values()), type(mortal).scatter

    def scatter(self, data, **options):
        if workers:
            os.kill(workers[victim], signal.SIGKILL)
            workers.clear()
        return send(self, data, **options)

    monkeypatch.setattr(type(mortal), "scatter", scatter)
    for _ in range(3):
        np.testing.assert_allclose(map_rows(lambda b, s: b @ s, lazy(DENSE, 10), constants=(S,)), DENSE @ S)
    assert not workers


def test_an_error_on_a_worker_reaches_the_caller(client):
    def fail(block):
        msg = "boom"
        raise ArithmeticError(msg)

    with pytest.raises(ArithmeticError, match="boom"):
        map_rows(fail, lazy(DENSE, 10))
