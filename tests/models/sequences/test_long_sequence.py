"""Long clips in parts: exact equals one shot, windows carry exactly the forward state, and memory is bounded."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stretchysnake import VideoMamba, VideoMambaConfig
from stretchysnake.models.resample import resize_temporal_positions
from stretchysnake.models.sequences.long_sequence import exact_features, window_features


def tiny(depth=3, **changes):
    torch.manual_seed(1)
    config = VideoMambaConfig(
        **{"embed_dim": 16, "depth": depth, "patch_size": 4, "image_size": 8, "num_frames": 4, "num_classes": 3,
           **changes}
    )  # fmt: skip
    model = VideoMamba(config)
    with torch.no_grad():
        torch.nn.init.normal_(model.temporal_pos_embedding)
        torch.nn.init.normal_(model.cls_token)
    return model.eval()


MODELS = {depth: tiny(depth) for depth in (1, 2, 3)}


@st.composite
def clips_in_parts(draw):
    """(number of frames, frames of each part)"""
    parts = draw(st.lists(st.integers(1, 7), min_size=1, max_size=9))
    return sum(parts), parts


@given(
    clip=clips_in_parts(),
    depth=st.sampled_from((1, 2, 3)),
    size=st.sampled_from(((8, 8), (4, 4), (12, 8), (7, 9))),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_exact_is_the_one_shot_feature(clip, depth, size, seed):
    num_frames, parts = clip
    generator = torch.Generator().manual_seed(seed)
    video = torch.randn(2, 3, num_frames, *size, generator=generator)
    model = MODELS[depth]
    found = exact_features(model, video.split(parts, 2), num_frames=num_frames, grid="floor")
    with torch.inference_mode():
        wanted = model.features(video, grid="floor")
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_exact_holds_for_tubelets_dtypes_and_other_patches(dtype):
    model = tiny(2, tubelet_size=2).to(dtype)
    video = torch.randn(1, 3, 22, 12, 12, dtype=dtype)
    found = exact_features(model, video.split(6, 2), 6, num_frames=22)
    with torch.inference_mode():
        wanted = model.features(video, 6)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)


@given(first=st.integers(0, 40), length=st.integers(1, 40), native=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_rows_of_the_temporal_table_are_those_of_the_whole(first, length, native):
    table = torch.randn(1, native, 5, generator=torch.Generator().manual_seed(native))
    num_tokens = first + length + 3
    rows = resize_temporal_positions(table, num_tokens, span=(first, first + length))
    whole = resize_temporal_positions(table, num_tokens)[:, first : first + length]
    torch.testing.assert_close(rows, whole, rtol=0, atol=2e-6)


def windows_of(model, video, lengths):
    return torch.stack(list(window_features(model, video.split(lengths, 2))))


def test_one_window_is_the_one_shot_feature():
    model, video = MODELS[3], torch.randn(2, 3, 5, 8, 8)
    with torch.inference_mode():
        wanted = model.features(video)
    torch.testing.assert_close(windows_of(model, video, [5])[0], wanted, rtol=0, atol=1e-6)


def test_a_window_knows_all_of_the_past_and_nothing_of_the_future():
    model, lengths = MODELS[2], [3, 4, 3, 2]
    video = torch.randn(1, 3, 12, 8, 8)
    before = windows_of(model, video, lengths)
    early, late = video.clone(), video.clone()
    early[:, :, 0] += 1.0
    late[:, :, 7] += 1.0  # first frame of the third window
    changed = windows_of(model, late, lengths)
    assert torch.equal(changed[:2], before[:2])
    assert all((windows_of(model, early, lengths) - before).abs().amax((1, 2)) > 1e-6)
    assert (changed[2:] - before[2:]).abs().amax() > 1e-6


def test_the_forward_state_is_carried_exactly():
    # With the backward direction silenced, a windowed layer is the whole layer: only [CLS] tokens differ, so they
    # are made to leave no trace in the state.
    model = tiny(1)
    mixer, norm = model.layers[0].mixer, model.layers[0].norm
    x = torch.randn(2, 23, 16)
    with torch.inference_mode():
        mixer.A_b_log.data.fill_(0)
        mixer.D_b.data.fill_(0)
        mixer.conv1d_b.weight.data.fill_(0)
        mixer.conv1d_b.bias.data.fill_(0)
        whole, carry, found = mixer(norm(x)), mixer.fresh_carry(x), []
        for part in x.split([1, 2, 9, 11], 1):
            y, carry = mixer.window(norm(part), carry)
            found.append(y)
    torch.testing.assert_close(torch.cat(found, 1), whole, rtol=0, atol=1e-6)


def test_parts_that_do_not_add_up_are_refused():
    model, video = MODELS[1], torch.randn(1, 3, 6, 8, 8)
    with pytest.raises(ValueError, match=r"parts \(4 frames\) must add up to num_frames \(6\)"):
        exact_features(model, video[:, :, :4].split(2, 2), num_frames=6)
    with pytest.raises(ValueError, match=r"frames 4 to 6 of 5 must lie inside the clip"):
        exact_features(model, video.split(2, 2), num_frames=5)


def test_a_folder_without_room_is_refused_before_the_work(tmp_path, monkeypatch):
    from stretchysnake.models.sequences import long_sequence

    usage = long_sequence.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(long_sequence.shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    video = torch.randn(1, 3, 400, 8, 8)
    with pytest.raises(
        ValueError, match=r"scratch .* GiB free, this clip needs 0\.0 GiB there; choose"
    ):
        exact_features(MODELS[1], video.split(4, 2), num_frames=400, scratch=tmp_path)


def test_nothing_is_left_in_the_scratch_folder(tmp_path):
    video = torch.randn(1, 3, 6, 8, 8)
    exact_features(MODELS[1], video.split(2, 2), num_frames=6, scratch=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_in_training_is_refused():
    model = tiny(1).train()
    for work in (
        lambda: exact_features(model, [torch.randn(1, 3, 4, 8, 8)], num_frames=4),
        lambda: next(window_features(model, [torch.randn(1, 3, 4, 8, 8)])),
    ):
        with pytest.raises(ValueError, match=r"evaluation mode; call model\.eval"):
            work()
