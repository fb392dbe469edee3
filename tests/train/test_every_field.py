"""Every field of a training changes what it says: one entry per field here, and a new field needs one."""

from dataclasses import fields, replace

import augmentation_effects as effects
import file_effects as files
import inverting_torchcodec
import numpy as np
import pytest
import torch
from shaped_clips import write_shaped
from short_training import OPTIM, TINY, ShortTraining, with_augmentation, with_optim

from stretchysnake import VideoMamba, ranks, read_records, save_model
from stretchysnake.cli.models import train as verb
from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.loader import groups_of
from stretchysnake.data.clips.transforms import IMAGENET_MEAN, IMAGENET_STD
from stretchysnake.data.records import write_records
from stretchysnake.flexibility import NANO
from stretchysnake.models import recompute
from stretchysnake.models.weights.files import read_checkpoint
from stretchysnake.train.checkpoints import state
from stretchysnake.train.run import OptimConfig, TrainRun


@pytest.fixture
def case(clip_folder, tmp_path, monkeypatch):
    return ShortTraining(clip_folder, tmp_path, monkeypatch)


def data(case):
    records = [record for record in read_records(case.clips) if record.label < 2]
    write_records(case.folder / "two.csv", records)
    assert len(case.train(data=str(case.folder / "two.csv")).weights["head.bias"]) == 2
    assert len(case.train().weights["head.bias"]) == 3


def out(case):
    assert {"weights.safetensors", "run.json"} <= {p.name for p in case.train().out.iterdir()}


def variant(case):
    drawn = case.train(variant="flexivit", steps=4).batches
    assert {batch.scale.size for batch in drawn} == {NANO.flexivit_size}
    assert {batch.scale for batch in case.train().batches} == {NANO.native}


def sets(case):
    only = replace(NANO, frames=(4,), sizes=(16,))
    (scale,) = {b.scale for b in case.train(variant="static_tokens", sets=only).batches}
    assert (scale.num_frames, scale.size, scale.patch_size) == (4, 16, 4)


def model(case):
    deeper = case.train(model=TINY.but(depth=2, embed_dim=24)).weights
    assert deeper["layers.1.norm.weight"].shape == (24,)


def weights(case):
    torch.manual_seed(5)  # not the run's: its first weights would be the same
    save_model(case.folder / "start.safetensors", VideoMamba(TINY.but(num_classes=3)))
    start = read_checkpoint(case.folder / "start.safetensors")[0]
    still = {"weights": str(case.folder / "start.safetensors"), **with_optim(lr=1e-12)}
    found = case.train(**still).weights
    assert all(torch.allclose(found[name], start[name], atol=1e-9) for name in start)


def trainable(case):
    short, long = case.train(trainable="head", steps=1), case.train(trainable="head", steps=3)
    changed = {n for n, t in short.weights.items() if not torch.equal(t, long.weights[n])}
    assert changed == {"head.weight", "head.bias"}


def epochs(case):
    assert len(case.train(epochs=0.5).batches) == 3  # half of twelve clips, two at a time
    assert (
        len(case.train(epochs=1, batch_size=5).batches) == 3
    )  # the third reaches into a second epoch


def token_budget(case):
    drawn = case.train(variant="static_tokens", token_budget=700, steps=6).batches
    assert len({len(b.labels) for b in drawn}) > 1
    assert all(len(b.labels) == max(1, 700 // b.scale.num_tokens) for b in drawn)


def tokens_per_pass(case):
    assert case.train(tokens_per_pass=NANO.native.num_tokens, steps=1).passes == [1, 1]


def activation_checkpointing(case):
    calls = []
    again = recompute.checkpoint
    case.patch.setattr(recompute, "checkpoint", lambda *a, **k: calls.append(a) or again(*a, **k))
    case.train()
    assert not calls
    case.train(activation_checkpointing=True)
    assert len(calls) == 2


def ema_decay(case):
    found = case.train(ema_decay=0.9, steps=3)
    average = read_checkpoint(found.out / "weights_ema.safetensors")[0]["head.weight"]
    assert not torch.equal(average, found.weights["head.weight"])
    assert not (case.train().out / "weights_ema.safetensors").exists()


def label_smoothing(case):
    found = case.train(label_smoothing=0.4, steps=1)
    logs = found.logits - found.logits.logsumexp(1, keepdim=True)
    own = logs[range(2), found.batches[0].labels]
    wanted = -(0.6 * own + 0.4 * logs.mean(1)).mean()
    assert found.result.losses[0][1] == pytest.approx(float(wanted), rel=1e-5)


def shuffle(case):
    listed = [record.label for record in read_records(case.clips)]
    drawn = case.train(shuffle=False, steps=6).batches
    assert [label for batch in drawn for label in batch.labels.tolist()] == listed
    mixed = case.train(steps=6).batches
    assert [label for batch in mixed for label in batch.labels.tolist()] != listed


def precision(case):
    assert case.train(precision="fp64").weights["head.bias"].dtype == torch.float64
    exact, narrow = case.train().result.losses, case.train(precision="bf16").result.losses
    assert exact[0][1] != narrow[0][1] == pytest.approx(exact[0][1], abs=0.05)


def compiled_blocks(case):
    compiled = []
    case.patch.setattr(torch.nn.Module, "compile", lambda block, **_: compiled.append(block))
    case.train()
    assert not compiled
    case.train(compile=True)
    assert len(compiled) == 1


def parallel(case):
    sliced = []
    case.patch.setattr(state, "shard", lambda model, device: sliced.append(model))
    for kind in ("ddp", "fsdp"):
        run = case.run(parallel=kind)
        state.new_state(VideoMamba(run.model), run, runtime=ranks.Runtime(world_size=2))
    assert len(sliced) == 1


def rank_timeout(case):
    asked = {}

    def opened(**options):
        asked.update(options)
        raise RuntimeError("enough")

    case.patch.setattr(ranks, "open_runtime", opened)
    with pytest.raises(RuntimeError, match="enough"):
        verb.run(["--data", "x", "--out", "y", "--rank_timeout", "7.5"])
    assert asked["longest_wait"] == 7.5


def device(case):
    case.patch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=r"device \(cuda\) is not there"):
        case.train(device="cuda")


def seed(case):
    one, other = (case.train(seed=number, **with_optim(lr=1e-12)) for number in (0, 1))
    assert not torch.allclose(one.weights["head.weight"], other.weights["head.weight"])
    assert not torch.equal(one.batches[0].video, other.batches[0].video)


def cache(case):
    case.train(cache=str(case.folder / "cache"), cache_frames=9, cache_size=40)
    (array,) = (case.folder / "cache").glob("*.npy")
    assert np.load(array).shape == (12, 9, 40, 40, 3)


def decoder(case):
    inverting_torchcodec.remove(case.patch)
    with pytest.raises(RuntimeError, match=r"pip install 'stretchysnake\[torchcodec\]'"):
        case.train(decoder="torchcodec")
    inverting_torchcodec.install(case.patch)
    frames, inverted = (
        case.train(decoder=name, steps=1, **files.split(case)).batches[0].video
        for name in ("pyav", "torchcodec")
    )
    mean, std = (torch.tensor(v).view(3, 1, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    assert ((frames + inverted) * std + 2 * mean - 1).abs().max() < 1.5 / 255
    with pytest.raises(ValueError, match=r"decoder \(torchcodec\) reads the files, and cache"):
        case.train(decoder="torchcodec", cache=str(case.folder / "cache"))


def fit(case):
    """What each does to pixels: tests/data/clips/test_fitted_clips.py."""
    wide = {"data": str(write_shaped(case.folder, count=4)), "batch_size": 4, "steps": 1}
    shapes = {
        name: {
            tuple(group.video.shape[-2:])
            for group in groups_of(case.train(**wide, fit=name).batches[0])
        }
        for name in ("square", "keep", "crop")
    }
    assert shapes["square"] == shapes["crop"] == {(32, 32)}
    assert shapes["keep"] == {(32, 32), (24, 40), (40, 24)}


def non_finite(case):
    """Its own fields: test_step.py."""
    case.patch.setattr(torch.Tensor, "item", lambda tensor: float("nan"))
    patience = replace(case.run().non_finite, patience=1, then="stop")
    with pytest.raises(RuntimeError, match="1 steps in a row were not finite"):
        case.train(non_finite=patience)


def lr(case):
    assert case.train(**with_optim(lr=4e-2)).rates[0] == pytest.approx(2e-2)  # half of it: warm-up


def weight_decay(case):
    free, decayed = (case.train(**with_optim(weight_decay=w), steps=1).weights for w in (0.0, 5.0))
    shrunk = "layers.0.mixer.in_proj.weight"
    assert decayed[shrunk].norm() < 0.99 * free[shrunk].norm()
    assert torch.equal(decayed["layers.0.norm.weight"], free["layers.0.norm.weight"])


def betas(case):
    """What each does: test_step_by_hand.py."""
    wanted = case.train().weights
    for pair in ((0.5, 0.999), (0.9, 0.5)):
        found = case.train(**with_optim(betas=pair)).weights
        assert not torch.equal(found["head.weight"], wanted["head.weight"]), pair


def warmup(case):
    assert case.train(**with_optim(warmup=0.0)).rates[0] == OPTIM.lr
    assert case.train(**with_optim(warmup=0.5)).rates[0] == OPTIM.lr / 2


def clip_norm(case):
    assert case.train(**with_optim(clip_norm=0.01)).norms == pytest.approx([0.01] * 2, rel=1e-3)
    assert min(case.train(**with_optim(clip_norm=0.0)).norms) > 0.1


def layer_decay(case):
    assert len(case.train().groups) == 1
    rates = sorted(case.train(**with_optim(layer_decay=0.5)).groups)
    assert [rate / rates[-1] for rate in rates] == pytest.approx([0.25, 0.5, 1.0])


def steps(case):
    assert [len(case.train(steps=number).batches) for number in (1, 3)] == [1, 3]


def batch_size(case):
    assert case.train(batch_size=5).result.clips == 10


def num_sample(case):
    done = case.train(batch_size=4, num_sample=2, epochs=1.0)
    assert len(done.batches) == 6 and done.result.clips == 24  # each of twelve videos once, twice
    alone = case.train(batch_size=4, epochs=1.0)
    assert len(alone.batches) == 3 and alone.result.clips == 12
    labels = [batch.labels.tolist() for batch in done.batches]
    assert [pair for four in labels for pair in (four[0], four[2])] == [
        label for batch in alone.batches for label in batch.labels.tolist()
    ]
    jittered = {"sets": replace(NANO, frames=(4,)), **with_augmentation(jitter=True)}
    done = case.train(variant="temporal", batch_size=4, num_sample=2, **jittered)
    assert all(not torch.equal(*batch.video[:2]) for batch in done.batches)


def scales_per_step(case):
    done = case.train(variant="static_tokens", scales_per_step=2, batch_size=4, steps=1)
    assert [len(group.labels) for group in done.batches[0].groups] == [2, 2]
    assert done.passes == [[2, 2]]  # both groups packed in one pass


def scale_draw(case):
    several = {"variant": "static_tokens", "scales_per_step": 4, "batch_size": 4, "steps": 3}
    for draw, alike in (("dealt", {4}), ("independent", {2, 3})):
        done = case.train(**several, scale_draw=draw)
        sizes = {len({group.scale.size for group in batch.groups}) for batch in done.batches}
        assert sizes <= alike, draw


def accumulate(case):
    assert case.train(accumulate=2, steps=1).passes == [1, 1]


def by_name(*effects, **others):
    return {effect.__name__: effect for effect in effects} | others


EFFECTS = {
    "TrainRun": by_name(
        *(data, out, variant, sets, model, weights, trainable, steps, epochs),
        *(batch_size, num_sample),
        *(
            scales_per_step,
            scale_draw,
            token_budget,
            tokens_per_pass,
            accumulate,
            activation_checkpointing,
            ema_decay,
        ),
        *(label_smoothing, shuffle, precision, parallel, rank_timeout, device, seed, cache),
        *(
            decoder,
            fit,
            files.on_error,
            files.max_bad_share,
            files.num_workers,
            files.timeout_seconds,
        ),
        *(files.held_out, files.held_out_every, files.checkpoint_every, files.keep_checkpoints),
        *(files.tensorboard, files.on_damaged, files.check_first, files.verify_cache, non_finite),
        optim=lr,
        augmentation=effects.flip,
        cache_frames=cache,
        cache_size=cache,
        compile=compiled_blocks,
    ),
    "OptimConfig": by_name(lr, weight_decay, betas, warmup, clip_norm, layer_decay),
    "Augmentation": by_name(
        *(effects.jitter, effects.crop_scale, effects.crop_ratio, effects.flip),
        *(effects.rand_augment, effects.erase, effects.mixup, effects.cutmix),
    ),
}
FIELDS = [(c, f.name) for c in (TrainRun, OptimConfig, Augmentation) for f in fields(c)]


@pytest.mark.parametrize(("config", "name"), FIELDS, ids=[f"{c.__name__}.{n}" for c, n in FIELDS])
def test_every_field_does_what_it_says(config, name, case):
    known = EFFECTS[config.__name__]
    assert name in known, f"{config.__name__}.{name}: add what it changes to EFFECTS"
    known[name](case)
