"""A run small enough to take steps by hand, and what tests of single steps ask of its state."""

import torch

from stretchysnake import VideoMamba, VideoMambaConfig
from stretchysnake.flexibility import Scale, ScaleSets
from stretchysnake.train.checkpoints.state import new_state
from stretchysnake.train.run import TrainRun

SCALE = Scale(num_frames=2, size=16, patch_size=8)


def tiny_run(*, depth, precision):
    """Six steps of vanilla at SCALE, three classes; nothing is read or written."""
    return TrainRun(
        data="-",
        out="-",
        variant="vanilla",
        sets=ScaleSets(native=SCALE, sizes=(16,), frames=(2,), flex_all_patches=(4, 8)),
        model=VideoMambaConfig(
            embed_dim=16, depth=depth, patch_size=8, image_size=16, num_frames=2, num_classes=3
        ),
        steps=6,
        precision=precision,
    )


def state_of(run):
    torch.manual_seed(0)
    model = VideoMamba(run.model)
    return new_state(model.double() if run.precision == "fp64" else model, run)


def weights(state):
    return {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
