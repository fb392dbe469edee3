"""Windows of videos: each file read once and decoded once, each window its own frames, at any rate and length."""

import os
import time
from hashlib import sha256
from pathlib import Path

import av
import pytest
from numbered_video import read_numbers, write_numbered, write_standstill, write_timed

from stretchysnake import cli
from stretchysnake.data.decoding import file_index, pyav_frames, video
from stretchysnake.flexibility import Scale
from stretchysnake.search import decoding
from stretchysnake.search.decoding import Decoded, Unreadable, Video, decoded
from stretchysnake.search.index import IndexSettings


def settings_of(window=None, stride=None, *, num_frames=8, size=64):
    return IndexSettings(
        weights_sha256="0" * 64,
        width=4,
        scale=Scale(num_frames=num_frames, size=size, patch_size=8),
        window_seconds=window,
        stride_seconds=stride if stride is not None else window,
    )


def repeat(source, path, times):
    """The packets of a video so many times behind one another."""
    with av.open(str(path), "w") as out:
        copy, later = None, 0
        for _ in range(times):
            with av.open(str(source)) as read:
                stream = read.streams.video[0]
                copy = copy or out.add_stream_from_template(stream)
                for packet in read.demux(stream):
                    if packet.size:
                        packet.stream = copy
                        packet.pts, packet.dts = packet.pts + later, packet.dts + later
                        out.mux(packet)
                later += stream.duration
    return str(path)


def test_twenty_minutes_are_listed_and_decoded_once(tmp_path, monkeypatch):
    piece = write_numbered(tmp_path / "piece.mp4", 250, fps=10, options={"g": "250"})
    path = repeat(piece, tmp_path / "long.mp4", 48)  # 12,000 frames
    met, read = [], []

    def watched(items, per_second):
        met.append(0)
        for item in items:
            met[-1] += 1
            yield item

    def seen(*arguments):
        for number, pixels in whole(*arguments):
            read.append(number)
            yield number, pixels

    whole = video.frames_by_stamp
    monkeypatch.setattr(pyav_frames, "watched", watched)
    monkeypatch.setattr(video, "frames_by_stamp", seen)
    parts = list(decoded([Video(path=path)], settings_of(10.0), num_workers=0))
    # its own index lists the packets, the first is read to compare; then what lies on the way, a piece after each
    # seek, each piece once
    assert met[0] == 1 and sum(met[1:]) <= 12_001
    assert read == sorted(set(read)) and len(read) == 8 * 120
    rows = [row for part in parts for row in part.rows]
    assert [(row.start, row.end) for row in rows] == [(10.0 * i, 10.0 * i + 10) for i in range(120)]
    assert {part.file.sha256 for part in parts} == {sha256(Path(path).read_bytes()).hexdigest()}
    assert max(part.frames.nbytes for part in parts) < 2**22 and len(parts) > 3
    shown = [read_numbers(frames) for part in parts for frames in part.frames]
    for row, numbers in zip(rows, shown, strict=True):
        asked = [row.start + (i + 0.5) * 10 / 8 for i in range(8)]
        assert numbers == [int(second * 10 + 1e-6) % 250 for second in asked]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_windows_of_several_videos_are_told_apart(tmp_path, num_workers, monkeypatch):
    monkeypatch.setattr(decoding, "_TOKENS_AT_ONCE", 3 * 513)  # three windows a part
    paths = [write_numbered(tmp_path / f"{n}.mp4", n, fps=10) for n in (100, 30, 200)]
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    videos = [Video(path=path) for path in [*paths, str(tmp_path / "bad.mp4")]]
    found = {video.path: [] for video in videos}
    for part in decoded(videos, settings_of(1.0, 0.5), num_workers=num_workers):
        found[part.video.path].append(part)
    assert [type(part) for part in found.pop(videos[3].path)] == [Unreadable]
    for path, count in zip(paths, (100, 30, 200), strict=True):
        parts = found[path]
        assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
        rows = [row for part in parts for row in part.rows]
        assert [row.start for row in rows] == [0.5 * i for i in range(count // 5 - 1)]
        shown = [read_numbers(frames) for part in parts for frames in part.frames]
        for row, numbers in zip(rows, shown, strict=True):
            asked = [row.start + (i + 0.5) / 8 for i in range(8)]
            assert numbers == [int(second * 10 + 1e-6) for second in asked]


def test_a_known_content_is_hashed_and_not_decoded(tmp_path, monkeypatch):
    path = write_numbered(tmp_path / "v.mp4", 20)
    (part,) = decoded([Video(path=path)], settings_of(), num_workers=0)
    monkeypatch.setattr(decoding, "read_frames", None)
    known = Video(path=path, known_sha256=part.file.sha256)
    assert list(decoded([known], settings_of(), num_workers=0)) == [
        Decoded(known, part.file, [], None, True)
    ]


def test_a_file_that_changes_while_it_is_read_is_no_row(tmp_path, monkeypatch):
    path = write_numbered(tmp_path / "v.mp4", 100, fps=10)
    monkeypatch.setattr(decoding, "_TOKENS_AT_ONCE", 513)
    parts = decoded([Video(path=path)], settings_of(1.0), num_workers=0)
    assert isinstance(next(parts), Decoded)
    with open(path, "ab") as file:
        file.write(b"more")
    (last,) = parts
    assert "changed while it was read" in str(last.error)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_file_that_goes_away_while_it_is_read_costs_itself_only(
    tmp_path, monkeypatch, num_workers
):
    paths = [write_numbered(tmp_path / f"{i}.mp4", 10 + i) for i in range(4)]
    checked, listed = decoding.check_file, file_index.index_packets

    def gone(path):
        head = checked(path)
        if path == paths[1]:
            os.unlink(path)
        return head

    def gone_too(path, packets, stream, **options):
        if path == paths[2]:
            os.unlink(path)
            file_index.os.stat(path)
        return listed(path, packets, stream, **options)

    monkeypatch.setattr(decoding, "check_file", gone)
    monkeypatch.setattr(file_index, "index_packets", gone_too)
    parts = list(
        decoded([Video(path=path) for path in paths], settings_of(), num_workers=num_workers)
    )
    told = [part.error.kind if isinstance(part, Unreadable) else "" for part in parts]
    assert told == ["", "missing", "missing", ""]
    assert [part.video.path for part in parts] == paths


def test_windows_of_a_variable_rate_are_by_time_and_repeats_are_counted(tmp_path):
    path = str(tmp_path / "still.mp4")
    times = write_standstill(path)
    (part,) = decoded([Video(path=path)], settings_of(10.0), num_workers=0)
    end = part.rows[-1].end
    assert 63.9 < end < 64.1
    spans = [(row.start, row.end) for row in part.rows]
    assert spans == [*((10.0 * i, 10.0 * i + 10) for i in range(6)), (end - 10, end)]
    for (start, stop), frames, row in zip(spans, part.frames, part.rows, strict=True):
        asked = [start + (i + 0.5) * (stop - start) / 8 for i in range(8)]
        wanted = [max(n for n, begins in enumerate(times) if begins <= at + 1e-6) for at in asked]
        assert read_numbers(frames) == wanted
        assert row.repeated == (len(set(wanted)) < 8)
        assert row.repeated
    assert [len(set(read_numbers(frames))) for frames in part.frames] == [3, 2, 2, 2, 2, 2, 3]


def test_a_window_without_a_frame_of_its_own_is_no_row(tmp_path):
    moving = [1000 * t // 30 for t in range(30)]
    times = [*moving, *(100_000 + t for t in moving)]  # a clock that leaps ahead by 99 s
    path = write_timed(tmp_path / "leap.mp4", times)
    (part,) = decoded([Video(path=path)], settings_of(2.0), num_workers=0)
    first, *others = part.rows  # of some 51 windows
    assert (first.start, first.end) == (0, 2) and 1 <= len(others) <= 2
    for row, frames in zip(others, part.frames[1:], strict=True):
        assert row.start < 100 + 1 and row.end > 100
        assert any(row.start <= times[number] / 1000 < row.end for number in read_numbers(frames))


def test_a_clock_that_leaps_to_that_of_the_wall_is_read_at_once(tmp_path):
    moving = [1000 * t // 30 for t in range(20)]
    path = write_timed(tmp_path / "wall.mkv", [*moving, *(1_700_000_000_000 + t for t in moving)])
    parts = list(decoded([Video(path=path)], settings_of(2.0), num_workers=1, timeout_seconds=20))
    rows = [row for part in parts for row in part.rows]
    assert (rows[0].start, rows[0].end) == (0, 2) and len(rows) <= 3
    shown = [read_numbers(frames) for part in parts for frames in part.frames]
    assert max(shown[0]) < 20 and all(max(numbers) >= 20 for numbers in shown[1:])


def test_the_command_names_an_option_that_it_has(trained, tmp_path, monkeypatch, capsys):
    path = write_numbered(tmp_path / "v.mp4", 20)

    monkeypatch.setattr(decoding, "packet_index", lambda path: time.sleep(60))
    words = ["embed", path, "--weights", str(trained[1].weights), "-o", str(tmp_path / "out")]
    assert cli.main([*words, "--window", "1", "--timeout_seconds", "0.3"]) == 2
    said = capsys.readouterr().err
    assert "within 0.3 s; leave it out, or allow more with --timeout_seconds" in said


VERBS = [
    "train",
    "evaluate",
    "finetune",
    "classify",
    "embed",
    "search",
    "long",
    "visualize",
    "data check",
]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_that_decodes_has_the_option_that_the_message_names(verb, capsys):
    with pytest.raises(SystemExit):
        cli.main([*verb.split(), "--help"])
    assert "--timeout_seconds" in capsys.readouterr().out
