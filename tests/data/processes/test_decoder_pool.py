"""What a bad file can do to a decoder stays in one process: crash, hang, memory, and the caller's own errors."""

import errno
import gc
import os
import time

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from misbehaving import behave
from numbered_video import read_numbers, write_numbered

from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.video import read_frames, verify
from stretchysnake.data.processes.decoder_pool import DecoderPool, map_decoding, stream_decoding
from stretchysnake.data.processes.watchdog import alive, watched

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


def fails(error):
    if error is not None:
        raise error
    return "read"


def parts_and_fails(error):
    yield "part"
    yield fails(error)


def system_error(name, *path):
    number = getattr(errno, name)
    return OSError(number, os.strerror(number), *path)


OF_THE_FILE = [
    (system_error("EIO"), "unreadable", True),
    (system_error("ESTALE"), "unreadable", True),
    (system_error("ENOENT", "v.mp4"), "missing", True),
    (system_error("EACCES", "v.mp4"), "unreadable", False),
]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_storage_that_errs_costs_its_own_file_only(num_workers):
    tasks = [("v.mp4", error) for error in (*(error for error, *_ in OF_THE_FILE), None)]
    *bad, good = map_decoding(fails, tasks, num_workers=num_workers)
    streamed = list(stream_decoding(parts_and_fails, tasks, num_workers=num_workers))
    assert good == "read" and streamed[-2:] == [(4, "part"), (4, "read")]
    assert streamed[:-2:2] == [(number, "part") for number in range(4)]
    for answers in (bad, [answer for _, answer in streamed[1:-2:2]]):
        told = [(type(error), error.kind, error.transient, error.path) for error in answers]
        assert told == [(DecodeError, *wanted, "v.mp4") for _, *wanted in OF_THE_FILE]


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    "error",
    [system_error("ENOSPC"), system_error("ENOENT", "weights"), OSError("no number")],
    ids=str,
)
def test_an_error_that_is_not_about_the_file_is_raised(error, num_workers):
    with pytest.raises(OSError, match=str(error).replace("[", r"\[")):
        list(map_decoding(fails, [("v.mp4", error)], num_workers=num_workers))
    with pytest.raises(OSError, match=str(error).replace("[", r"\[")):
        list(stream_decoding(parts_and_fails, [("v.mp4", error)], num_workers=num_workers))


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


def test_fewer_workers_than_none_are_told_what_none_is():
    with pytest.raises(ValueError, match=r"num_workers \(-1\) must be at least 0, which decodes"):
        list(map_decoding(behave, [("a", "a")], num_workers=-1))


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
    monkeypatch.setattr("stretchysnake.data.processes.decoder_pool._FILES_PER_WORKER", 3)
    with DecoderPool(lambda number: (number, os.getpid()), num_workers=1) as pool_:
        found = list(pool_.map([("", number) for number in range(10)]))
    assert [number for number, _ in found] == list(range(10))
    assert len({process for _, process in found}) == 4


def in_parts(words):
    """Yields the words one by one and does what each says."""
    for word in words:
        match word:
            case "sleep":
                time.sleep(0.4)
            case "alive":
                time.sleep(0.4)
                alive()
            case _:
                yield behave(word)


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_parts_of_a_task_come_in_order_and_its_error_last(num_workers):
    tasks = [["a", "b", "c"], ["d", "bad", "e"], [], ["f"]]
    found = {number: [] for number in range(4)}
    for number, part in stream_decoding(
        in_parts, (("", task) for task in tasks), num_workers=num_workers
    ):
        found[number].append(part.kind if isinstance(part, DecodeError) else part)
    assert found == {0: ["a", "b", "c"], 1: ["d", "truncated"], 2: [], 3: ["f"]}


@pytest.mark.parametrize("sign", ["alive", "part"])
def test_time_is_limited_between_signs_of_life_and_not_in_all(sign):
    words = ["alive"] * 5 if sign == "alive" else ["sleep", "x"] * 5
    started = time.monotonic()
    with DecoderPool(in_parts, num_workers=1, timeout_seconds=1.5) as pool_:
        answers = list(pool_.stream([("long", [*words, "a"])]))
    assert time.monotonic() - started > 1.9  # more than the limit
    assert answers == [(0, "x")] * (5 if sign == "part" else 0) + [(0, "a")]


def test_a_file_that_hangs_after_parts_is_given_up_and_others_go_on():
    with DecoderPool(in_parts, num_workers=1, timeout_seconds=2.0) as pool_:
        found = list(pool_.stream([("bad.mp4", ["a", "b", "hang"]), ("good.mp4", ["c"])]))
    assert found[0] == (0, "a") and found[-1] == (1, "c")
    (error,) = [part for number, part in found if isinstance(part, DecodeError)]
    assert (error.kind, error.path) == ("timeout", "bad.mp4")
    assert "within 2 s; leave it out, or allow more with --timeout_seconds" in str(error)


def test_a_slow_caller_is_not_the_files_fault():
    with DecoderPool(in_parts, num_workers=2, timeout_seconds=1.0) as pool_:
        found = []
        for answer in pool_.stream([("a", ["a", "b"]), ("c", ["c", "d"])]):
            time.sleep(1.2)  # longer than a file may take
            found.append(answer)
    assert sorted(found) == [(0, "a"), (0, "b"), (1, "c"), (1, "d")]


def test_a_process_waits_with_its_parts_until_they_are_taken(tmp_path):
    def many(path):
        for number in range(20):
            (tmp_path / str(number)).touch()
            yield np.zeros(2**20, np.uint8)

    with DecoderPool(many, num_workers=1, timeout_seconds=20.0) as pool_:
        answers = pool_.stream([("v", "v")])
        for taken in range(1, 4):
            next(answers)
            time.sleep(0.3)
            # one held until the next is there, one on its way, one being made
            assert len(list(tmp_path.iterdir())) <= taken + 3
        answers.close()


def test_the_first_frame_and_every_second_of_them_is_a_sign_of_life(monkeypatch):
    signs = []
    monkeypatch.setattr(
        "stretchysnake.data.processes.watchdog._tell", lambda: signs.append(len(seen))
    )
    seen: list[int] = []
    for item in watched(range(100), 30):
        seen.append(item)
    assert seen == list(range(100)) and signs == [0, 29, 59, 89]
    signs.clear()
    assert list(watched(range(500), 60_000.0)) == list(range(500)) and len(signs) == 3
    assert list(watched(range(3), 0.1)) == [0, 1, 2] and len(signs) == 6


@pytest.mark.parametrize(("name", "of_packets"), [("v.mp4", 1), ("v.mkv", 4)])
def test_whole_reads_and_checks_tell_that_they_are_alive(name, of_packets, tmp_path, monkeypatch):
    path, signs = write_numbered(tmp_path / name, 90, fps=30), []
    monkeypatch.setattr("stretchysnake.data.processes.watchdog._tell", lambda: signs.append(1))
    verify(path)
    # the first and three seconds of packets (an mp4 lists its own, and one is compared), and so of frames
    assert len(signs) == of_packets + 4
    signs.clear()
    read_frames(path, [89])
    assert len(signs) >= 5
