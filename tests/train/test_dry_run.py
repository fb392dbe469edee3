"""What a run will cost, told before it starts and near what it then takes."""

from dataclasses import replace

import pytest
import torch
from small_backbones import small_config

from stretchysnake import VideoMamba, VideoMambaConfig
from stretchysnake.flexibility import Scale, sets_around
from stretchysnake.models.architectures import config_named
from stretchysnake.ranks import Runtime
from stretchysnake.recipes.named import recipe_named
from stretchysnake.train.dry_run import dry_run, run_cost, training_memory
from stretchysnake.train.loop import train
from stretchysnake.train.run import TrainRun

MODEL = VideoMambaConfig.named("nano", embed_dim=16, depth=2, num_classes=0)
MVIT = config_named("mvit-nano", num_classes=0)


@pytest.mark.parametrize("again", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("width", [64, 96])
def test_memory_estimate_is_near_what_backward_keeps(width, again):
    torch.manual_seed(0)
    config = VideoMambaConfig.named("nano", embed_dim=width, num_classes=5)
    run = TrainRun(data="-", out="-", model=config, activation_checkpointing=again)
    model, scale = VideoMamba(config).train(), Scale(8, 32, 8)
    model.checkpoint_activations = again
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.rand(4, 3, 8, 32, 32))
    parameters = sum(p.numel() for p in model.parameters())
    estimated = training_memory(run, scale, clips=4, parameters=parameters) - 16 * parameters
    measured = sum(storage.nbytes() for storage in held.values())
    if again:  # hooks see what waits for backward, not the one block that is computed again in it
        estimated -= training_memory(
            replace(run, model=config.but(depth=1), activation_checkpointing=False),
            scale,
            clips=4,
            parameters=0,
        )
    assert estimated / 1.35 < measured < 1.35 * estimated


def test_sliced_weights_cost_a_rank_its_part():
    run, two = recipe_named("finetune_hmdb51"), Runtime(rank=0, world_size=2)
    whole = run_cost(run, num_clips=3570, runtime=two)
    sliced = run_cost(replace(run, parallel="fsdp"), num_clips=3570, runtime=two)
    assert whole.memory - sliced.memory == pytest.approx(whole.parameters * 16 / 2, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"fit": "keep"}, r"fit \(keep\) gives clips of .* hiera cannot take: "),
        ({"variant": "flex_all"}, r"height \(40\) must be .*; choose other sets \(--sets.sizes"),
    ],
    ids=["fit", "scale"],
)
def test_what_a_training_refuses_at_its_start_its_dry_run_refuses(
    clip_folder, tmp_path, change, text
):
    model = small_config("hiera")
    sets = replace(sets_around(model.native), sizes=(40,))
    fields = {"data": str(clip_folder), "out": str(tmp_path / "out"), "model": model, "sets": sets}
    run = TrainRun(**fields, **{"variant": "vanilla", **change}, steps=2, device="cpu")
    for start in (dry_run, train):
        with pytest.raises(ValueError, match=text):
            start(run)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "weights", "text"),
    [
        (MVIT, None, "are of videomamba, and the model is mvit"),
        (MVIT, "stretchysnake-nano", "are of videomamba, and the model is mvit"),
        (MODEL, None, "weights do not fit the model"),
    ],
)
def test_weights_that_would_stop_the_run_are_refused(trained, tmp_path, model, weights, text):
    named = {"out": str(tmp_path), "weights": weights or trained[1].weights}
    run = replace(trained[0], model=model, sets=sets_around(model.native), **named)
    with pytest.raises(ValueError, match=text):
        dry_run(run)


def test_weights_that_fit_are_named_and_those_to_come_may_come(trained, tmp_path):
    run = replace(trained[0], out=str(tmp_path), weights=trained[1].weights)
    assert f"start     {run.weights}" in dry_run(run)
    later = replace(run, weights=str(tmp_path / "later.pth"))
    assert f"start     {later.weights} (not there yet)" in dry_run(later)
    assert not list(tmp_path.iterdir())
