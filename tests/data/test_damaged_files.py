"""A corpus of damaged files, and mutated ones: every file named with the right kind, no crash, no hang, no lie."""

import os
import random
import signal
import socket

import pytest
from damaged_corpus import build, textured
from numbered_video import write_numbered

from stretchysnake.data.clips import training_order
from stretchysnake.data.clips.frame_cache import FrameCache
from stretchysnake.data.clips.loader import (
    DecodedClips,
    DecodingLimits,
    evaluation_batches,
    open_clips,
    training_batches,
)
from stretchysnake.data.decode_error import ERROR_KINDS, DecodeError, check_file
from stretchysnake.data.decoding.audit import CheckRun, check
from stretchysnake.data.decoding.video import read_frames, verify, write_video
from stretchysnake.data.processes.decoder_pool import DecoderPool
from stretchysnake.data.records import VideoRecord, find_videos, write_records
from stretchysnake.data.records_key import ends_of
from stretchysnake.flexibility import Scale


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return build(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def verdicts(corpus, tmp_path_factory):
    listing = tmp_path_factory.mktemp("list") / "all.csv"
    write_records(listing, [VideoRecord(path, 0) for path in corpus])
    return {v.path: v for v in check(listing, CheckRun(report=None)).verdicts}


def test_the_corpus_is_large_and_varied(corpus):
    bad = [wrong for wrong, kinds in corpus.values() if "ok" not in kinds]
    assert len(bad) >= 60 and len(set(bad)) >= 15, (len(bad), len(set(bad)))


@pytest.fixture
def no_wait():
    """Whoever waits for a pipe is woken with a TimeoutError."""

    def wake(*_):
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, wake)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("what", ["pipe", "link", "socket", "device"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, no_wait, what):
    path, good = tmp_path / "cam.ts", write_numbered(tmp_path / "good.mp4", 10)
    if what == "device":
        path.symlink_to("/dev/zero")
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    else:
        os.mkfifo(tmp_path / "live" if what == "link" else path)
        if what == "link":
            path.symlink_to("live")
    listed = [VideoRecord(str(path), 0), VideoRecord(good, 1)]
    told = "cam.ts: unreadable: is a pipe, a socket or a device, not a file"
    with pytest.raises(DecodeError, match=told):
        check_file(str(path))
    cache = FrameCache.build(
        listed, tmp_path / "cache", num_frames=4, size=16, num_workers=0, timeout_seconds=5
    )
    assert cache.records == listed[1:] and told in str(cache.holes[0])
    audit = check([path, good], CheckRun(report=None, num_workers=1, timeout_seconds=5))
    assert audit.counts() == {"ok": 1, "unreadable": 1}
    assert ends_of(path) is None
    linked = [str(path)] if path.is_symlink() else []
    assert find_videos(tmp_path) == [*linked, good]


def test_every_file_is_named_with_the_right_kind(corpus, verdicts):
    wrong = {
        path: (what, kinds, verdicts[path].kind, verdicts[path].reason)
        for path, (what, kinds) in corpus.items()
        if verdicts[path].kind not in kinds
    }
    assert not wrong, "\n".join(map(str, wrong.items()))


def labelled(corpus):
    """All files of the corpus as a data set of two classes."""
    return [VideoRecord(path, number % 2) for number, path in enumerate(corpus)]


def test_an_epoch_over_the_corpus_ends_and_lists_every_bad_file(corpus, monkeypatch):

    monkeypatch.setattr(training_order, "scales_at", lambda *_, **__: (Scale(4, 16, 8),))
    limits = DecodingLimits(num_workers=2, timeout_seconds=30)
    clips = DecodedClips(labelled(corpus), limits=limits)
    steps = -(-len(corpus) // 8)
    run = {"variant": "vanilla", "batch_size": 8, "seed": 0, "steps": steps}
    batches = list(training_batches(clips, **run))
    assert [len(batch.labels) for batch in batches] == [8] * steps
    listed = {event.path for event in clips.bad.events}
    good = {path for path, (_, kinds) in corpus.items() if "ok" in kinds}
    assert listed.isdisjoint(good)
    seen_bad = set(corpus) - good - {p for p in corpus if "flipped" in p or "hole" in p}
    assert (
        seen_bad <= listed
    )  # damage inside the pictures may lie behind the four frames that were drawn


def test_evaluation_answers_for_the_good_files_alone(corpus, capsys):
    good = {path for path, (_, kinds) in corpus.items() if "ok" in kinds}
    clips = open_clips(labelled(corpus), cache=None)
    assert good <= {record.path for record in clips.records}
    answered = []
    for indices, video in evaluation_batches(clips, Scale(8, 16, 8), 16):
        assert len(indices) == len(video)
        answered += [clips.records[index].path for index in indices]
    assert good <= set(answered)
    bad = {record.path for record, _ in clips.failures} | {
        error.path for error in clips.bad.quarantine.values()
    }
    assert bad.isdisjoint(answered) and len(answered) + len(bad) == len(corpus)


def mutated(content, seed):
    """The file after one to four accidents: bits, blocks lost, doubled, zeroed or moved, lengths gone wild, a cut."""
    draw, changed = random.Random(seed), bytearray(content)
    for _ in range(draw.randint(1, 4)):
        size = len(changed)
        at, length = draw.randrange(size), draw.choice((1, 4, 64, 900))
        match draw.randrange(7):
            case 0:
                changed[at] ^= 1 << draw.randrange(8)
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = changed[at : at + length]
            case 3:
                changed[at : at + length] = bytes(min(length, size - at))
            case 4:
                changed[at:at] = draw.randbytes(length)
            case 5:
                place = max(0, changed.rfind(b"moov")) + 4 * draw.randrange(300)
                changed[place : place + 4] = draw.choice(
                    (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff")
                )
            case 6:
                del changed[max(64, at) :]
    return bytes(changed)


def read_all(path):
    """What a check and a training would do to the file."""
    outcome = []
    for act in (lambda: verify(path).num_frames,
                lambda: read_frames(path, lambda n: [0, n // 2, n - 1], size=(16, 16)).shape[0]):  # fmt: skip
        try:
            outcome.append(act())
        except DecodeError as error:
            outcome.append(error)
    return outcome


@pytest.mark.parametrize(
    "seeds", [range(100), pytest.param(range(100, 1000), marks=pytest.mark.slow)], ids=["100", "the-rest"]
)  # fmt: skip
def test_mutated_files_give_frames_or_typed_errors(seeds, tmp_path):
    write_video(tmp_path / "a.mp4", textured(24), options={"g": "8", "bf": "2", "crf": "30"})
    write_numbered(tmp_path / "b.mp4", 24)
    originals = [(tmp_path / name).read_bytes() for name in ("a.mp4", "b.mp4")]

    def tasks():
        for seed in seeds:
            path = tmp_path / f"m{seed}.mp4"
            path.write_bytes(mutated(originals[seed % 2], seed))
            yield str(path), str(path)

    errors = frames = 0
    with DecoderPool(read_all, num_workers=2, timeout_seconds=30, memory_gib=2) as pool:
        for outcome in pool.map(tasks()):
            assert not isinstance(outcome, DecodeError), outcome  # a crash, a hang or a balloon
            for answer in outcome:
                if isinstance(answer, DecodeError):
                    assert answer.kind in ERROR_KINDS and answer.kind != "missing"
                    errors += 1
                else:
                    frames += 1
    assert errors + frames == 2 * len(seeds) and min(errors, frames) > len(seeds) / 10
