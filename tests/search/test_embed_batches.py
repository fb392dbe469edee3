"""Videos that share a forward pass: the index has the bytes of one video a pass, whatever happens to the neighbours."""

from pathlib import Path

import numpy as np
import pytest

from stretchysnake.data.clips.frame_choice import uniform_indices
from stretchysnake.data.decoding.video import read_frames
from stretchysnake.eval.features import passes
from stretchysnake.eval.features.placement import ON_CPU
from stretchysnake.search import embed as embedding
from stretchysnake.search.embed import embed, embed_into, open_weights
from stretchysnake.search.index import read_index

CELL = {"num_frames": 4, "size": 16, "placement": ON_CPU}


@pytest.fixture
def sizes(monkeypatch):
    """The number of clips of every pass that is not a trial; four of twelve videos share one where bits allow it."""
    monkeypatch.setattr(passes, "_SHARE_TRIED", 1 / 3)
    seen, real = [], embedding.features_of

    def counted(model, scale, frames, *, batch_size):
        seen.extend(len(frames[i : i + batch_size]) for i in range(0, len(frames), batch_size))
        return real(model, scale, frames, batch_size=batch_size)

    monkeypatch.setattr(embedding, "features_of", counted)
    return seen


def bits_allow_it(options) -> bool:
    """On processors whose library sums a pass as it sums one clip, with the native operations."""
    model, settings = open_weights(options["weights"], **CELL)
    return all(passes.same_alone(model, settings.scale, count) for count in (3, 4))


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def test_videos_that_share_passes_have_the_bytes_of_their_own(
    trained, clip_folder, tmp_path, sizes
):
    options = {"weights": trained[1].weights, **CELL}
    embed_into(tmp_path / "alone", clip_folder, batch_size=1, **options)
    assert sizes == [1] * 12
    sizes.clear()
    embed_into(tmp_path / "shared", clip_folder, **options)
    assert sizes == ([4, 4, 4] if bits_allow_it(options) else [1] * 12)
    assert bytes_of(tmp_path / "shared") == bytes_of(tmp_path / "alone")
    sizes.clear()
    found = embed(
        sorted(clip_folder.rglob("*.mp4"), reverse=True)[:11], **options
    )  # three a pass, two left
    assert sizes == ([3, 3, 3, 1, 1] if bits_allow_it(options) else [1] * 11)
    index = read_index(tmp_path / "alone")
    by_path = dict(zip((row.file.path for row in index.rows), index.features, strict=True))
    assert found.paths == [str(p) for p in sorted(clip_folder.rglob("*.mp4"), reverse=True)[:11]]
    np.testing.assert_array_equal(found.features.numpy(), [by_path[path] for path in found.paths])


def test_a_size_asked_for_is_that_of_the_passes(trained, clip_folder, sizes):
    embed(clip_folder, weights=trained[1].weights, batch_size=5, **CELL)
    assert sizes == [5, 5, 2]


def test_one_without_features_takes_no_neighbour_along(trained, clip_folder, tmp_path, monkeypatch):
    real, videos = embedding.features_of, sorted(clip_folder.rglob("*.mp4"))
    bad = read_frames(videos[5], lambda n: uniform_indices(n, 4), size=(16, 16))

    def broken(model, scale, frames, **options):
        features = real(model, scale, frames, **options)
        features[(frames == bad).all((1, 2, 3, 4))] = np.nan
        return features

    monkeypatch.setattr(embedding, "features_of", broken)
    done = embed_into(
        tmp_path / "out", clip_folder, weights=trained[1].weights, batch_size=4, **CELL
    )
    assert (done.num_videos, done.num_new) == (11, 11)
    ((path, reason),) = done.failures
    assert path == str(videos[5]) and "its features are not finite" in reason


def test_what_passes_before_a_stop_is_kept(trained, clip_folder, tmp_path, monkeypatch):
    real, passed = embedding.features_of, []

    def stopping(*args, **options):
        if len(passed) == 2:
            raise KeyboardInterrupt
        passed.append(1)
        return real(*args, **options)

    options = {"weights": trained[1].weights, "batch_size": 5, **CELL}
    with monkeypatch.context() as patch:
        patch.setattr(embedding, "features_of", stopping)
        with pytest.raises(KeyboardInterrupt):
            embed_into(tmp_path / "out", clip_folder, **options)
    done = embed_into(tmp_path / "out", clip_folder, **options)
    assert done.num_new == 2 and done.num_videos == 12
