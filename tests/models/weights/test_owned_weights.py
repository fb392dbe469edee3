"""Weights are copies in memory that begins at 64 bytes, whoever read them: equal weights, equal features to the bit."""

import json

import pytest
import torch
from safetensors.torch import load_file
from small_backbones import SMALL, small_config

from stretchysnake import load_model, save_model
from stretchysnake.models.architectures import build_model
from stretchysnake.models.weights.fitting import ALIGNED, load_weights, own_weights


def shifted(tensor: torch.Tensor, by: int) -> torch.Tensor:
    """The same values in memory that begins `by` bytes past a multiple of 64."""
    room = torch.empty(tensor.numel() * tensor.element_size() + 128, dtype=torch.uint8)
    start = -room.data_ptr() % ALIGNED + by
    there = room[start : start + tensor.numel() * tensor.element_size()].view(tensor.dtype)
    there = there.view(tensor.shape)
    there.copy_(tensor)
    assert tensor.numel() == 0 or there.data_ptr() % ALIGNED == by
    return there


def places(model) -> set[int]:
    tensors = [*model.parameters(), *model.buffers()]
    return {tensor.data_ptr() % ALIGNED for tensor in tensors if tensor.numel()}


@pytest.mark.parametrize("name", SMALL)
def test_a_model_filled_from_misaligned_tensors_owns_aligned_ones(name):
    torch.manual_seed(0)
    config = small_config(name)
    model = build_model(config)
    state = {key: shifted(tensor, 8) for key, tensor in model.state_dict().items()}
    other = build_model(config)
    load_weights(other, state)
    assert places(other) == {0}
    theirs = {tensor.untyped_storage().data_ptr() for tensor in state.values()}
    assert not theirs & {p.untyped_storage().data_ptr() for p in other.parameters()}


@pytest.mark.parametrize("pad", range(0, 64, 8))
def test_features_of_a_file_do_not_depend_on_where_its_tensors_lie(tmp_path, pad):
    """safetensors' data begin behind a header of any multiple of 8 bytes."""
    torch.manual_seed(0)
    model = build_model(small_config("videomamba")).eval()
    save_model(tmp_path / "w.safetensors", model)
    content = (tmp_path / "w.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length] + b" " * pad
    moved = len(header).to_bytes(8, "little") + header + content[8 + length :]
    (tmp_path / "moved.safetensors").write_bytes(moved)
    assert json.loads(header)["__metadata__"]["format"]
    found, _ = load_model(tmp_path / "moved.safetensors")
    assert places(found) == {0}
    native = model.config.native
    video = torch.randn(1, 3, native.num_frames, native.size, native.size)
    with torch.inference_mode():
        assert torch.equal(found.features(video), model.features(video))


def test_a_model_that_another_library_filled_can_be_made_to_own_its_weights(tmp_path):
    torch.manual_seed(0)
    model = build_model(small_config("videomamba")).eval()
    other = build_model(model.config).eval()
    state = {key: shifted(tensor, 40) for key, tensor in model.state_dict().items()}
    other.load_state_dict(state, assign=True)  # as transformers does
    assert places(other) == {40}
    before = dict(other.named_parameters())
    assert own_weights(other) is other
    assert places(other) == {0}
    assert all(before[key] is tensor for key, tensor in other.named_parameters())
    video = torch.randn(
        1, 3, model.config.num_frames, model.config.image_size, model.config.image_size
    )
    with torch.inference_mode():
        assert torch.equal(other.features(video), model.features(video))


def test_equal_weights_are_equal_bytes(tmp_path):
    """safetensors alone writes its metadata in an order of its own in each process."""
    model = build_model(small_config("videomamba"))
    save_model(tmp_path / "w.safetensors", model, variant="vanilla", classes=["é", "b"])
    content = (tmp_path / "w.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert list(header["__metadata__"]) == ["architecture", "config", "format", "run"]
    state = load_file(tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
