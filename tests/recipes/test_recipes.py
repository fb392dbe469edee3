"""Every recipe of pre-training and transfer: runs when shrunk, costs what its header says, can be changed and shown."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stretchysnake import VideoMamba, VideoMambaConfig, cli, save_model
from stretchysnake.flexibility import NANO, scale_at
from stretchysnake.models.weights.files import read_checkpoint
from stretchysnake.recipes import pretrain, transfer
from stretchysnake.recipes.named import RECIPES, recipe_named
from stretchysnake.recipes.transfer import finetune_nano
from stretchysnake.train.dry_run import dry_run, run_cost
from stretchysnake.train.loop import train

MODEL = VideoMambaConfig.named("nano", embed_dim=16, depth=2, num_classes=0)


def shrunk(name, clip_folder, folder):
    """The recipe with nothing changed but its size, its data and the place of its files."""
    save_model(folder / "start.safetensors", VideoMamba(MODEL.but(num_classes=7)))
    run = recipe_named(name)
    return replace(
        run,
        data=str(clip_folder),
        out=str(folder / "out"),
        sets=NANO,
        model=MODEL.but(drop_path=run.model.drop_path),
        weights=str(folder / "start.safetensors"),
        epochs=None,
        steps=2,
        batch_size=2,
        tokens_per_pass=256,
    )


@pytest.mark.parametrize("name", list(RECIPES))
def test_recipe_runs_shrunk_for_two_steps(name, clip_folder, tmp_path):
    run = shrunk(name, clip_folder, tmp_path)
    result = train(run)
    assert [step for step, _ in result.losses] == [0, 1]
    assert all(0 < loss < 4 for _, loss in result.losses)  # log 3 = 1.1 for nothing learnt
    wanted = [scale_at(run.bound_variant, seed=run.seed, step=step) for step in (0, 1)]
    assert result.tokens == 2 * sum(scale.num_tokens for scale in wanted)
    start = read_checkpoint(run.weights)[0]
    found = read_checkpoint(result.weights)[0]
    assert found["head.weight"].shape == (3, 16)
    backbone = [name for name in start if not name.startswith("head.")]
    moved = {name for name in backbone if not torch.equal(found[name], start[name])}
    if run.trainable == "head":
        assert not moved
    else:  # rates are small: what is near 1 may not move in fp32
        assert moved >= {name for name in backbone if name.endswith("proj.weight")}


@pytest.mark.parametrize("module", [pretrain, transfer], ids=["pretrain", "transfer"])
def test_headers_state_the_computed_cost(module):
    pattern = r"^ +(\w+) +(\d+) steps +([\d.]+) EFLOP +(\d+) GPU-hours +(\d+) GiB$"
    lines = re.findall(pattern, module.__doc__, flags=re.MULTILINE)
    kinds = ("pretrain",) if module is pretrain else ("finetune", "linear_probe")
    assert {line[0] for line in lines} == {name for name in RECIPES if name.startswith(kinds)}
    for name, steps, exaflops, hours, memory in lines:
        clips = (
            pretrain.NUM_CLIPS if module is pretrain else transfer.DATASETS[name.split("_")[-1]][1]
        )
        cost = run_cost(recipe_named(name), num_clips=clips)
        assert (cost.steps, f"{cost.exaflops:.3g}") == (int(steps), exaflops), name
        assert f"{cost.exaflops * 1e4 / 3600:.0f}" == hours, name
        assert f"{cost.memory / 2**30:.0f}" == memory, name


def test_variants_differ_in_two_fields():
    first, second = recipe_named("pretrain_vanilla"), recipe_named("pretrain_static_tokens")
    assert replace(first, variant=second.variant, out=second.out) == second
    # the script's defaults: 64 videos, each drawn twice out of one decoding, 1e-3 for 256 clips
    assert (first.epochs, first.num_sample) == (50, 2)
    assert (first.batch_size, first.optim.lr) == (2 * 64, 5e-4)
    assert first.optim.weight_decay == 0.05


@pytest.mark.parametrize(
    ("name", "clips", "lr"),
    [
        ("pretrain_flex_all", 128, 5e-4),
        ("pretrain_official", 512, 2e-4),  # 16 GPUs x 16 videos x 2 draws, 1e-4 for 256
        ("finetune_ucf101", 64, 2.5e-5),  # 1e-4 for 256
        ("linear_probe_ssv2", 64, 2.5e-4),  # 1e-3 for 256
    ],
)
def test_learning_rates_follow_the_clips_of_a_step(name, clips, lr):
    run = recipe_named(name)
    assert run.batch_size == clips and run.optim.lr == pytest.approx(lr, rel=1e-12)


def test_rates_of_the_built_in_benchmark_are_their_own():
    for trainable, lr in (("all", 1e-3), ("head", 4e-3)):
        assert finetune_nano(weights="w", data="d", out="o", trainable=trainable).optim.lr == lr


def test_official_recipe_augments_as_it_says():
    augmentation = recipe_named("pretrain_official").augmentation
    assert (augmentation.mixup, augmentation.cutmix, augmentation.erase) == (0.8, 1.0, 0.25)
    assert augmentation.rand_augment == (2, 21) and augmentation.flip
    assert not recipe_named(
        "pretrain_static_tokens"
    ).augmentation.mixes  # §4.1: simple cross-entropy


def test_dry_run_tells_and_writes_nothing(clip_folder, tmp_path):
    run = replace(shrunk("pretrain_static_tokens", clip_folder, tmp_path), tokens_per_pass=None)
    lines = "\n".join(dry_run(run))
    assert "12 videos, 3 classes" in lines
    assert re.search(r"steps +2 of 2 clips", lines)
    assert "EFLOP" in lines and "GFLOP/s, measured" in lines and "checkpoints up to 3 x" in lines
    assert re.search(r"memory +0\.\d\d GiB a rank", lines)
    assert [path.name for path in tmp_path.iterdir()] == ["start.safetensors"]
    listed = tmp_path / "list.csv"
    listed.write_text(f"path,label\n{clip_folder}/class0/0.mp4,0\n{clip_folder}/absent.mp4,1\n")
    assert "1 of them are not there, first" in "\n".join(dry_run(replace(run, data=str(listed))))


def test_command_line_takes_a_recipe_and_changes_fields(clip_folder, tmp_path, capsys):
    arguments = ["train", "pretrain_flexivit", "--data", str(clip_folder), "--optim.lr", "0.5"]
    with pytest.raises(SystemExit):
        cli.main([*arguments, "--print_config"])
    (tmp_path / "run.yaml").write_text(capsys.readouterr().out)
    text = (tmp_path / "run.yaml").read_text()
    assert "variant: flexivit" in text and "lr: 0.5" in text and "weight_decay: 0.05" in text
    small = ["--model.embed_dim", "16", "--model.depth", "1", "--batch_size", "2"]
    assert cli.main(["train", "--config", str(tmp_path / "run.yaml"), *small, "--dry-run"]) == 0
    assert "VideoMamba 16 wide, 1 deep" in capsys.readouterr().out
    assert not Path("runs/pretrain_flexivit").exists()
