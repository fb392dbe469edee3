"""Files that rightly hold less than they promise are whole; the same files, cut, are named and never pass for whole."""

import pytest
from odd_videos import ODD, find_box

from stretchysnake.data.containers.container_length import missing_bytes
from stretchysnake.data.containers.mp4_tables import trimmed_samples
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.audit import CheckRun, check
from stretchysnake.data.decoding.verdicts import render_audit
from stretchysnake.data.decoding.video import probe, read_frames, verify


def index_first(path):
    """Move the index (moov) of an mp4 before its pictures, as for streaming."""
    content = path.read_bytes()
    (moov, length), (ftyp, head) = find_box(content, b"moov"), find_box(content, b"ftyp")
    index = bytearray(content[moov : moov + length])
    at = index.index(b"stco")
    for entry in range(int.from_bytes(index[at + 8 : at + 12], "big")):
        place = at + 12 + 4 * entry
        offset = int.from_bytes(index[place : place + 4], "big") + length
        index[place : place + 4] = offset.to_bytes(4, "big")
    body = content[ftyp + head : moov] + content[moov + length :]
    path.write_bytes(content[:head] + bytes(index) + body)
    return path


INDEX_FIRST = (
    "edit-tail-cut",
    "edit-tail-cut-bframes",
    "edit-start-and-tail-cut",
    "edit-pieces",
    "starts-late-mp4",
)
AS_WRITTEN = (
    "dropped-mpeg4-avi",
    "dropped-mpeg4-bframes-avi",
    "dropped-h264-avi",
    "dropped-mjpeg-avi",
    "sound-longer-avi",
    "last-held-mkv",
    "sound-longer-mkv",
    "sound-longer-flv",
    "text-behind-live-fragments",
    "vp8-altref-ivf",
    "bytes-behind-gif",
    "semicolons-behind-gif",
)


@pytest.mark.parametrize("kind", [*INDEX_FIRST, *AS_WRITTEN])
def test_a_file_that_keeps_less_than_it_promises_is_whole_and_its_cut_copies_are_not(
    kind, tmp_path
):
    path, shown, _ = ODD[kind](tmp_path)
    if kind in INDEX_FIRST:
        index_first(path)
    assert verify(path).num_frames == len(shown)
    content = path.read_bytes()
    content = content.partition(b"made with")[0].partition(b"\0;;x")[
        0
    ]  # what stands behind the end is no loss
    for kept in (len(content) // 2, len(content) * 9 // 10, len(content) - 40):
        path.write_bytes(content[:kept])
        for act in (verify, probe, lambda path: read_frames(path, [0])):
            with pytest.raises(DecodeError, match="truncated"):
                act(path)


def test_a_cut_that_loses_only_hidden_samples_is_named(tmp_path):
    path, _, _ = ODD["edit-tail-cut"](tmp_path)
    assert trimmed_samples(str(path), 1) == 60
    index_first(path)
    assert trimmed_samples(str(path), 1) == 60 and read_frames(path, [29]).shape[0] == 1
    path.write_bytes(path.read_bytes()[:-1])  # frame 59, which the edit list hides
    assert trimmed_samples(str(path), 1) is None
    with pytest.raises(DecodeError, match="truncated: the header promises 60 frames, 33 are there"):
        read_frames(path, [29])


def test_a_cut_that_loses_sound_alone_is_read_with_a_note(tmp_path):
    path, shown, _ = ODD["sound-longer-mp4"](tmp_path)
    index_first(path)
    assert verify(path).note == ""
    path.write_bytes(path.read_bytes()[:-40])
    info = verify(path)
    assert info.num_frames == len(shown)
    assert info.note.startswith("it is 40 bytes shorter than its structure says; all frames")


def test_no_file_passes_for_trimmed_without_an_edit_list_that_hides_some(tmp_path):
    path, _, _ = ODD["text-behind-mp4"](tmp_path)
    assert trimmed_samples(str(path), 1) is None


@pytest.mark.parametrize(
    "rest", [b"\0", b"\0\0\1", b"\0\0\1\x90mo", b"\0\0\1\x90moof"[:7]], ids=repr
)
def test_the_beginning_of_a_box_behind_live_fragments_is_a_cut(rest, tmp_path):
    path, _, _ = ODD["text-behind-live-fragments"](tmp_path)
    path.write_bytes(path.read_bytes().partition(b"made with")[0] + rest)
    with pytest.raises(DecodeError, match="truncated"):
        verify(path)


@pytest.mark.parametrize(
    "rest", [b"\r\n", b"end", b"\0\0\0\0", b"\0\0\1\x90abc", bytes(300)], ids=repr
)
def test_what_is_no_box_behind_live_fragments_is_no_cut(rest, tmp_path):
    path, _, _ = ODD["text-behind-live-fragments"](tmp_path)
    path.write_bytes(path.read_bytes().partition(b"made with")[0] + rest)
    assert missing_bytes(str(path)) == 0 and verify(path).num_frames == 60


def test_a_gif_cut_after_a_semicolon_is_not_whole(tmp_path):
    path, _, _ = ODD["bytes-behind-gif"](tmp_path)
    content = path.read_bytes().partition(b"made with")[0]
    place = content.index(b";", len(content) // 2)
    path.write_bytes(content[: place + 1])
    with pytest.raises(DecodeError, match="truncated"):
        verify(path)


def test_data_check_reads_a_stopped_recording_and_says_what_is_missing(tmp_path):
    path, shown, _ = ODD["stopped-ts"](tmp_path)
    audit = check([path], CheckRun(report=str(tmp_path / "report.json")))
    assert [(v.kind, v.num_frames) for v in audit.verdicts] == [("ok", len(shown))]
    said = (
        f"{path}: read, but it ends inside a packet, as a recording does that was stopped by hand"
    )
    assert said in render_audit(audit)
    again = check([path], CheckRun(report=str(tmp_path / "report.json")))
    assert (
        again.reused == 1
        and "its last frame is not whole and is left out" in again.verdicts[0].note
    )


def test_a_transport_stream_of_one_broken_frame_is_truncated_or_corrupt(tmp_path):
    path, _, _ = ODD["stopped-ts"](tmp_path)
    path.write_bytes(path.read_bytes()[: 188 * 5 + 100])
    with pytest.raises(DecodeError, match="truncated"):
        verify(path)
