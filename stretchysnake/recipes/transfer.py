"""What the paper does with trained weights on six data sets (§4.3, Fig. 4): fine-tuning and linear probing.

Command   stretchysnake train finetune_ucf101 --data ucf101/train.csv --weights runs/x/weights.safetensors --out runs/y
          stretchysnake train linear_probe_ucf101 --data ucf101/train.csv --weights ... --out runs/z
Cost      as in pretrain.py; probes decode and encode every clip in every epoch:
            finetune_ucf101         4471 steps    0.556 EFLOP     2 GPU-hours   43 GiB
            finetune_hmdb51         1674 steps    0.208 EFLOP     1 GPU-hours   43 GiB
            finetune_coin           4233 steps    0.527 EFLOP     1 GPU-hours   43 GiB
            finetune_breakfast       637 steps   0.0793 EFLOP     0 GPU-hours   43 GiB
            finetune_ssv2          79178 steps     9.85 EFLOP    27 GPU-hours   43 GiB
            finetune_diving48       7044 steps    0.877 EFLOP     2 GPU-hours   43 GiB
            linear_probe_ucf101     4471 steps    0.139 EFLOP     0 GPU-hours   14 GiB
            linear_probe_hmdb51     1674 steps   0.0521 EFLOP     0 GPU-hours   14 GiB
            linear_probe_coin       4233 steps    0.132 EFLOP     0 GPU-hours   14 GiB
            linear_probe_breakfast   637 steps   0.0198 EFLOP     0 GPU-hours   14 GiB
            linear_probe_ssv2      79178 steps     2.46 EFLOP     7 GPU-hours   14 GiB
            linear_probe_diving48   7044 steps    0.219 EFLOP     1 GPU-hours   14 GiB
Paper     Fig. 4 shows bars without numbers: StretchySnake above VideoMamba on all six, in both settings
"""

from dataclasses import replace

from stretchysnake.flexibility import NANO, PAPER
from stretchysnake.models.architectures import config_named
from stretchysnake.train.optim_config import OptimConfig, lr_for
from stretchysnake.train.run import TrainRun

DATASETS = {
    "ucf101": (101, 9_537),
    "hmdb51": (51, 3_570),
    "coin": (180, 9_030),
    "breakfast": (10, 1_357),
    "ssv2": (174, 168_913),
    "diving48": (48, 15_027),
}
"""Classes and training videos of each data set (first split where there are several)."""


CLIPS = 64
"""Of one step. Paper does not say."""


def finetune(dataset: str) -> TrainRun:
    """Fine-tuning at the fixed scale T = 16, 224 px for 30 epochs (§4.3), whole model."""
    num_classes, _ = DATASETS[dataset]
    return TrainRun(
        data=f"{dataset}/train.csv",
        out=f"runs/finetune_{dataset}",
        variant="vanilla",
        sets=PAPER,
        model=config_named("videomamba-middle", num_classes=num_classes, drop_path=0.1),
        weights="runs/pretrain_static_tokens/weights.safetensors",
        # Paper does not say; we use VideoMamba's fine-tuning values (1e-4 for 256 clips, layer decay 0.8).
        optim=OptimConfig(
            lr=lr_for(CLIPS, per_256=1e-4),
            weight_decay=0.05,
            warmup=5 / 30,
            clip_norm=0.0,
            layer_decay=0.8,
        ),
        epochs=30,
        batch_size=CLIPS,
        tokens_per_pass=64 * 16 * 196,
        activation_checkpointing=True,
        precision="bf16",
    )


def linear_probe(dataset: str) -> TrainRun:
    """A linear classifier on the frozen class token, T = 16 and 224 px (§4.3)."""
    base = finetune(dataset)
    return replace(
        base,
        out=f"runs/linear_probe_{dataset}",
        model=replace(base.model, drop_path=0.0),
        trainable="head",
        activation_checkpointing=False,  # nothing is kept for a frozen backbone
        # Paper does not say; we use the learning rate of §4.1 (for 256 clips) and no decay on so few weights.
        optim=OptimConfig(
            lr=lr_for(CLIPS, per_256=1e-3), weight_decay=0.0, warmup=0.0, clip_norm=0.0
        ),
    )


def finetune_nano(
    *,
    weights: str,
    data: str,
    out: str,
    cache: str | None = None,
    steps: int = 200,
    batch_size: int = 32,
    seed: int = 0,
    trainable: str = "all",
    device: str = "auto",
) -> TrainRun:
    """`finetune`, or with trainable "head" the SGD probe, shrunk to MotionDigits: fixed scale T = 8, 32 px.

    200 steps of 32 are the paper's 30 epochs on 213 clips. The learning rates are a quarter of the nano model's
    in pre-training, and as in pre-training for the head alone; not tuned.
    """
    base = finetune("ucf101")
    whole = trainable == "all"
    return replace(
        base,
        data=data,
        out=out,
        sets=NANO,
        model=config_named("videomamba-nano", num_classes=0),
        weights=weights,
        trainable=trainable,
        optim=replace(
            base.optim,
            lr=1e-3 if whole else 4e-3,
            weight_decay=0.05 if whole else 0.0,
            layer_decay=0.8 if whole else 1.0,
            clip_norm=1.0,
        ),
        epochs=None,
        steps=steps,
        batch_size=batch_size,
        tokens_per_pass=None,
        activation_checkpointing=False,
        precision="fp32",
        seed=seed,
        cache=cache,
        device=device,
    )
