"""What one process can check of ranks; two of them train together in tests/train/test_two_ranks.py."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist

from stretchysnake.ranks import SINGLE, RankLost, Runtime, is_lost_rank, open_runtime


def test_one_process_needs_no_connection():
    assert SINGLE.gather("x") == ["x"]
    assert SINGLE.from_first("y") == "y"
    assert SINGLE.device("cpu") == torch.device("cpu")
    assert Runtime(rank=1, world_size=2).is_first is False


def test_only_errors_of_connections_are_taken_for_lost_ranks():
    assert is_lost_rank(RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer"))
    assert not is_lost_rank(RuntimeError("not enough memory"))
    assert not is_lost_rank(ValueError("gloo"))
    assert issubclass(RankLost, RuntimeError)
    with open_runtime() as runtime:
        assert runtime is SINGLE


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_absent_gpu_is_said():
    with pytest.raises(RuntimeError, match=r"device \(cuda\) is not there"):
        SINGLE.device("cuda")


def test_rows_of_ranks_that_hold_unequal_numbers_come_without_padding(monkeypatch):
    ours, theirs = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[9.0]])

    def all_gather_object(texts, text):
        texts[:] = [text, str(len(theirs))]

    def all_gather(held, padded):
        held[0].copy_(padded)
        held[1][: len(theirs)] = theirs
        held[1][len(theirs) :] = 7  # what a padded row of another rank may hold

    monkeypatch.setattr(dist, "all_gather_object", all_gather_object)
    monkeypatch.setattr(dist, "all_gather", all_gather)
    rows = Runtime(rank=0, world_size=2).gather_rows(ours)
    assert [part.tolist() for part in rows] == [[[1.0], [2.0], [3.0]], [[9.0]]]


@pytest.mark.parametrize(
    ("folders", "first"), [("aabb", {0, 2}), ("aaaa", {0}), (None, {0})], ids=str
)
def test_one_rank_goes_first_on_every_disk_that_is_filled(tmp_path, monkeypatch, folders, first):
    """Four ranks, two on each of two machines, that see the same folder or each machine its own."""
    told, barrier, lock = {}, threading.Barrier(4), threading.Lock()
    entered: list[int] = []

    def from_first(runtime, text):
        if runtime.is_first:
            told["text"] = text
        barrier.wait(120)
        return told["text"]

    monkeypatch.setattr(Runtime, "from_first", from_first)
    monkeypatch.setattr(Runtime, "meet", lambda runtime: barrier.wait(120))

    def work(rank):
        runtime = Runtime(rank=rank, world_size=4, local_rank=rank % 2)
        with runtime.first_goes_first(folders and tmp_path / folders[rank] / "cache"):
            if rank in first:
                time.sleep(0.05)
            with lock:
                entered.append(rank)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert set(entered[: len(first)]) == first and sorted(entered) == [0, 1, 2, 3]
    assert list(tmp_path.glob("*/*/*")) == []  # no mark stays
