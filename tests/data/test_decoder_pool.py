"""What a bad file can do to a decoder stays in one process: crash, hang, memory, and the caller's own errors."""

import gc
import os
import signal
import time

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from numbered_video import read_numbers, write_numbered

from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoder_pool import DecoderPool
from stretchysnake.data.video import read_frames


def behave(what):
    match what:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "hang":
            time.sleep(600)
        case "balloon":
            return np.ones(2 * 2**30, np.uint8).sum()
        case "bad":
            raise DecodeError("truncated", "bad", "cut off")
        case "mistake":
            raise ValueError("size (0) must be at least 1")
    return what


TRAPS = {
    "crash": "corrupt",
    "exit": "corrupt",
    "hang": "timeout",
    "balloon": "corrupt",
    "bad": "truncated",
}
TEXTS = {
    "crash": "crashed the decoder (SIGSEGV)",
    "exit": "crashed the decoder (exit code 3)",
    "hang": "not one more second of it was decoded within 3 s",
    "balloon": "needs more than 1 GiB to decode",
    "bad": "cut off",
}


def pool(**options):
    return DecoderPool(behave, **{"timeout_seconds": 3.0, "memory_gib": 1.0, **options})


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_bad_file_costs_its_own_place_only(num_workers):
    words = ["a", "crash", "b", "hang", "c", "balloon", "exit", "d", "bad", "e"]
    with pool(num_workers=num_workers) as decoders:
        answers = list(decoders.map((word, word) for word in words))
    for word, answer in zip(words, answers, strict=True):
        if word in TRAPS:
            assert isinstance(answer, DecodeError) and answer.kind == TRAPS[word], answer
            assert answer.path == word and TEXTS[word] in str(answer)
        else:
            assert answer == word


def test_results_come_in_order_however_long_each_takes():
    def slow(number):
        time.sleep(0.02 * (number % 3))
        return number

    with DecoderPool(slow, num_workers=3) as decoders:
        assert list(decoders.map((str(n), n) for n in range(20))) == list(range(20))


def test_the_callers_own_mistake_is_raised():
    with pool() as decoders, pytest.raises(ValueError, match=r"size \(0\) must be at least 1"):
        list(decoders.map([("a", "a"), ("x", "mistake"), ("b", "b")]))


def test_tasks_are_taken_a_few_ahead_only():
    taken = []

    def endless():
        for number in range(10**9):
            taken.append(number)
            yield "v", number

    with DecoderPool(abs, num_workers=2) as decoders:
        answers = decoders.map(endless())
        assert [next(answers) for _ in range(5)] == list(range(5))
        answers.close()
    assert len(taken) <= 5 + 8


def test_leaving_the_pool_ends_its_processes():
    with pool(num_workers=2, timeout_seconds=600) as decoders:
        answers = decoders.map([("a", "a"), ("x", "hang"), ("y", "hang")])
        assert next(answers) == "a"
        pids = [worker.process.pid for worker in decoders._workers]
        assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_pool_can_be_used_again():
    with pool() as decoders:
        assert list(decoders.map([("a", "a")])) == ["a"]
        assert [answer.kind for answer in decoders.map([("x", "crash")])] == ["corrupt"]
        assert list(decoders.map([("b", "b")])) == ["b"]


def test_frames_and_errors_of_real_files_come_through(tmp_path):
    paths = [write_numbered(tmp_path / f"{n}.mp4", n) for n in (9, 12)] + [str(tmp_path / "gone")]
    with DecoderPool(lambda path: read_frames(path, [8, 2])) as decoders:
        first, second, missing = decoders.map((path, path) for path in paths)
    assert read_numbers(first) == read_numbers(second) == [8, 2]
    assert missing.kind == "missing" and missing.path == paths[2]


@pytest.mark.parametrize("option", ["num_workers", "timeout_seconds", "memory_gib"])
def test_limits_must_be_positive(option):
    with pytest.raises(ValueError, match=rf"{option} \(0\) must be more than 0"):
        pool(**{option: 0})


def test_workers_free_nothing_the_parent_left_behind(tmp_path):
    # A scaler of FFmpeg holds threads, and freeing it waits for them; a forked process has none of them.
    path = tmp_path / "v.mp4"
    write_numbered(path, 5)
    with av.open(str(path)) as container:
        scaler = VideoReformatter()
        scaler.reformat(next(container.decode(video=0)), 640, 480, "rgb24")
    garbage = [scaler]
    garbage.append(garbage)
    del garbage, scaler
    with DecoderPool(lambda _: gc.collect() >= 0, timeout_seconds=10.0) as pool_:
        assert list(pool_.map([("a", 0), ("b", 1)])) == [True, True]


def test_a_worker_that_has_done_its_share_is_replaced_and_nothing_is_lost(monkeypatch):
    monkeypatch.setattr("stretchysnake.data.decoder_pool._FILES_PER_WORKER", 3)
    with DecoderPool(lambda number: (number, os.getpid()), num_workers=1) as pool_:
        found = list(pool_.map([("", number) for number in range(10)]))
    assert [number for number, _ in found] == list(range(10))
    assert len({process for _, process in found}) == 4
