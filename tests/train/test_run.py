"""A run as a value: which fields make it another run."""

from dataclasses import fields, replace

from tiny_run import tiny_run

from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.train.run import NO_EFFECT_ON_WEIGHTS, NonFiniteConfig, OptimConfig

PLAIN = tiny_run(depth=2, precision="fp64")
RUN = replace(PLAIN, variant="static_tokens", sets=replace(PLAIN.sets, frames=(2, 4)))


def test_digest_tells_apart_what_decides_the_weights():
    """Every field by one other value; those without effect on weights are listed in run.py."""
    others = {
        "data": "other", "variant": "temporal", "sets": replace(RUN.sets, frames=(1,)),
        "model": RUN.model.but(depth=1), "optim": OptimConfig(lr=0.5), "weights": "w.pth",
        "trainable": "head", "steps": 7, "epochs": 2.0, "batch_size": 3, "token_budget": 99,
        "accumulate": 2, "tokens_per_pass": 99, "activation_checkpointing": True,
        "ema_decay": 0.5, "label_smoothing": 0.2, "augmentation": Augmentation(flip=True),
        "shuffle": False, "precision": "fp32", "compile": True, "seed": 1, "cache_frames": 3,
        "cache_size": 9, "on_error": "skip", "non_finite": NonFiniteConfig(patience=1),
        "out": "other", "cache": "c", "checkpoint_every": 5, "keep_checkpoints": 9,
        "on_damaged": "stop", "num_workers": 0, "device": "cpu", "parallel": "fsdp",
        "rank_timeout": 3.0, "tensorboard": True, "timeout_seconds": 3.0, "max_bad_share": 0.5,
        "held_out": "other", "held_out_every": 7, "decoder": "torchcodec",
        "scales_per_step": 2, "scale_draw": "independent", "verify_cache": True,
        "check_first": True, "fit": "crop", "num_sample": 2,
    }  # fmt: skip
    assert others.keys() == {field.name for field in fields(RUN)}
    same = {
        name
        for name, value in others.items()
        if replace(RUN, **{name: value}).digest() == RUN.digest()
    }
    assert same == set(NO_EFFECT_ON_WEIGHTS)
    decayed = replace(RUN, optim=replace(RUN.optim, layer_decay=0.5))
    assert decayed.digest() != RUN.digest()
