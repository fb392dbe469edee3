"""What an evaluation or an index takes from processes lies in shared memory, and is what this process would make."""

import numpy as np
import pytest
import torch
from numbered_video import write_numbered

from stretchysnake.data.clips.loader import DecodedClips, DecodingLimits, shaped_batches
from stretchysnake.data.processes import shared_memory
from stretchysnake.data.processes.shared_memory import KeptClips
from stretchysnake.data.records import VideoRecord
from stretchysnake.flexibility import Scale
from stretchysnake.search.decoding import Unreadable, Video, decoded
from stretchysnake.search.index import IndexSettings

SCALE = Scale(4, 32, 8)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Three videos, one that is missing, three more."""
    folder = tmp_path_factory.mktemp("videos")
    found = [write_numbered(folder / f"{i}.mp4", 16 + i) for i in range(6)]
    return [*found[:3], str(folder / "gone.mp4"), *found[3:]]


@pytest.fixture
def shown(monkeypatch):
    """Slots of which arrays were made, and the memories."""
    slots, memories, whole = [], [], KeptClips.array

    def array(self, slot, shape):
        slots.append(slot)
        memories.append(self)
        return whole(self, slot, shape)

    monkeypatch.setattr(KeptClips, "array", array)
    return slots, memories


def source(paths, num_workers):
    limits = DecodingLimits(num_workers=num_workers)
    return DecodedClips([VideoRecord(path, 0) for path in paths], limits=limits)


def test_batches_of_an_evaluation_come_without_a_pipe(paths, shown):
    here = list(shaped_batches(source(paths, 0), SCALE, 4))
    assert [indices for indices, _ in here] == [[0, 1, 2, 4], [5, 6]] and not shown[0]
    there = list(shaped_batches(source(paths, 1), SCALE, 4))
    assert len(shown[0]) == 6 and all(slot.num_bytes == 4 * 32 * 32 * 3 for slot in shown[0])
    for (ours, parts), (theirs, others) in zip(here, there, strict=True):
        assert ours == theirs and torch.equal(parts[0].video, others[0].video)
    memory = shown[1][0]
    assert memory.newest.num_bytes == 8 * 4096 * 3  # four kept and four in work, three pages each
    assert memory.newest.take(memory.newest.num_bytes) is not None  # all was given back


def test_views_that_are_all_kept_come_through_the_pipe_at_last(paths, shown):
    paths = paths * 2
    kept = list(source(paths, 1).draw_views(range(14), SCALE, num_views=2))
    assert len({slot.offset for slot in shown[0]}) == len(shown[0]) == 5  # one kept, four in work
    for index, (path, found) in enumerate(zip(paths, kept, strict=True)):
        if "gone" in path:
            assert found.kind == "missing"
        else:
            wanted = source(paths, 0).views(index, SCALE, num_views=2)
            assert wanted.shape == (2, 4, 32, 32, 3) and torch.equal(found, wanted)


def test_whole_videos_of_an_index_come_without_a_pipe(paths, shown):
    settings = IndexSettings(
        weights_sha256="0" * 64, width=1, scale=SCALE, window_seconds=None, stride_seconds=None
    )
    videos = [Video(path=path) for path in paths]
    here = {part.video.path: part for part in decoded(videos, settings, num_workers=0)}
    there = list(decoded(videos, settings, num_workers=1, num_kept=2))
    assert len(shown[0]) == 6 and {part.video.path for part in there} == set(paths)
    for part in there:
        wanted = here[part.video.path]
        if isinstance(part, Unreadable):
            assert part.video.path == paths[3] and isinstance(wanted, Unreadable)
        else:
            assert part.rows == wanted.rows and np.array_equal(part.frames, wanted.frames)
    (known,) = [Video(path=paths[0], known_sha256=here[paths[0]].file.sha256)]
    (same,) = decoded([known], settings, num_workers=1)
    assert same.frames is None and len(shown[0]) == 6


def test_a_task_waits_for_memory_only_while_others_keep_the_processes_busy():
    memory = KeptClips(num_kept=1, num_workers=2)
    slots = [memory.take(5000) for _ in range(10)]
    assert slots[8] is not None and slots[9] is None
    assert {slot.offset for slot in slots[:9]} == {8192 * i for i in range(9)}
    assert memory.newest.num_bytes == 9 * shared_memory.pages(5000) == 9 * 8192
    assert next(memory.waited_for(5000, [1, 2])) is None  # and would ask again
    with pytest.raises(StopIteration) as ended:  # without waiting
        next(memory.waited_for(5000, [1]))
    assert ended.value.value is None
