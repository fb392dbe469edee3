"""Tables of relative positions for other windows, and windows told from files, by hand."""

import pytest
import torch
import torch.nn.functional as F

from stretchysnake.models.architectures import create_model
from stretchysnake.models.transformers.layers.windows import relative_index
from stretchysnake.models.weights.official.swin import resize_bias_table

CPU = torch.device("cpu")


def model(**changes):
    fields = {"embed_dim": 8, "depths": (1,), "num_heads": (2,), "window_size": (4, 3, 3)}
    return create_model("video-swin", **{**fields, "num_classes": 3, **changes})


def with_index(state: dict, window: tuple[int, int, int]) -> dict:
    index = relative_index(window, window, "geometric", CPU)
    return {**state, "backbone.layers.0.blocks.0.attn.relative_position_index": index}


TABLE = "backbone.layers.0.blocks.0.attn.relative_position_bias_table"


def test_table_for_a_window_of_other_length_and_sides():
    table = torch.randn(7 * 5 * 5, 2, dtype=torch.float64)
    found = resize_bias_table(table, (4, 3, 3), (2, 4, 2))
    cube = table.view(7, 5, 5, 2).permute(0, 3, 1, 2)  # (time, head, row, column)
    cube = F.interpolate(cube, size=(7, 3), mode="bicubic", align_corners=False)
    line = cube.permute(1, 2, 3, 0).reshape(1, -1, 7)
    line = F.interpolate(line, size=3, mode="linear", align_corners=False)
    wanted = line.view(2, 7, 3, 3).permute(3, 1, 2, 0).reshape(63, 2)
    assert torch.allclose(found, wanted, rtol=1e-12)
    assert resize_bias_table(table, (4, 3, 3), (4, 3, 3)) is table


def test_the_offset_zero_stays_in_the_middle():
    table = torch.zeros(15 * 13 * 13, 1)
    table.view(15, 13, 13)[7, 6, 6] = 1.0
    found = resize_bias_table(table, (8, 7, 7), (4, 4, 4)).view(7, 7, 7)
    assert found.argmax() == 3 * 49 + 3 * 7 + 3


@pytest.mark.parametrize(
    "window", [(8, 7, 7), (16, 7, 7), (4, 3, 3), (6, 3, 3), (5, 3, 3), (3, 5, 5)]
)
def test_window_is_told_from_a_file_with_its_index(window):
    state = with_index(model(window_size=window).state_dict(), window)
    assert type(model()).config_of(state).window_size == window


def test_published_windows_are_told_without_their_index():
    for window in ((8, 7, 7), (16, 7, 7), (4, 3, 3)):
        state = model(window_size=window).state_dict()
        assert type(model()).config_of(state).window_size == window
    asked = type(model()).config_of(
        model(window_size=(2, 3, 2)).state_dict(), window_size=(2, 3, 2)
    )
    assert asked.window_size == (2, 3, 2)


def test_table_of_another_window_is_fitted_by_the_index_in_the_file():
    state = model(window_size=(5, 3, 3)).state_dict()  # 225 offsets, as many as (1, 8, 8) has
    fitted, notes = model().fitted(with_index(state, (5, 3, 3)))
    assert torch.equal(fitted[TABLE], resize_bias_table(state[TABLE], (5, 3, 3), (4, 3, 3)))
    assert notes[1] == "tables of relative positions 5x3x3 -> 4x3x3 (bicubic, linear in time)"
    for window in ((5, 3, 3), (4, 3, 2)):  # without it
        state = model(window_size=window).state_dict()
        with pytest.raises(ValueError, match=r"rows are not of one window_size alone"):
            model().fitted(state)


def test_index_of_another_window_with_as_many_offsets_is_refused():
    state = with_index(model(window_size=(4, 3, 2)).state_dict(), (4, 2, 3))
    with pytest.raises(ValueError, match=r"is not a table of window_size \(4, 3, 2\)"):
        model(window_size=(4, 3, 2)).fitted(state)


def test_windows_of_unequal_sides_must_be_given():
    state = model(window_size=(1, 2, 3)).state_dict()  # 15 offsets: also 8 frames of one token
    with pytest.raises(ValueError, match="give window_size="):
        type(model()).config_of(with_index(state, (1, 2, 3)))


def test_image_models_are_refused():
    state = model().state_dict()
    stem = "backbone.patch_embed.proj.weight"
    with pytest.raises(ValueError, match="an image model; weights of a video model are needed"):
        type(model()).config_of({**state, stem: state[stem][:, :, 0]})
