"""Features of decoded clips, several in a forward pass, and how many may share one.

On a GPU, and in bf16 anywhere, the last bits of a clip's features depend on how many clips its pass has, as products of
other shapes are summed in another order. On the CPU in fp32 they do not where the architecture says so
(`same_in_any_batch` of its config) and the processor's library bears it out: two threads were seen to sum the products
of nine tokens otherwise than those of eighteen. So it is tried, with the very pass, before it is relied on.
"""

import numpy as np
import torch

from stretchysnake.data.clips.transforms import normalise
from stretchysnake.eval.features.placed_model import device_of, inference, precision_of
from stretchysnake.flexibility import Scale
from stretchysnake.models.backbone import Backbone, pixels_of
from stretchysnake.ops.out_of_memory import is_out_of_memory, memory_in_words

_MOST_ON_CPU = 16
"""Beyond, a pass of small clips was no faster."""
_SHARE_TRIED = 1 / 32
"""Of the clips, so many are the pass that is tried: trying takes at most a twelfth of the work."""


def features_of(
    model: Backbone, scale: Scale, frames: np.ndarray, *, batch_size: int
) -> np.ndarray:
    """(n, C) fp32 of frames (n, T, S, S, 3) uint8, in passes of batch_size clips.

    RuntimeError, with what to do, where a pass does not fit in memory.
    """
    pixels, blocks = pixels_of(model.config), []
    with inference(model) as device:
        for start in range(0, len(frames), batch_size):
            clips = torch.from_numpy(frames[start : start + batch_size])
            try:
                video = normalise(clips, **pixels).to(device)
                features = model.features(video, scale.patch_size, grid="floor")
                blocks.append(features.float().cpu().numpy())
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise RuntimeError(_too_large(len(clips), scale, device)) from None
    return np.concatenate(blocks)


def _too_large(count: int, scale: Scale, device: torch.device) -> str:
    told = f"; {words}" if (words := memory_in_words(device)) else ""
    advice = (
        "give a smaller --batch_size" if count > 1 else "choose fewer --frames or a smaller --size"
    )
    return (
        f"not enough memory for a forward pass of {count} clip{'s' * (count != 1)} at T={scale.num_frames} "
        f"S={scale.size}{told}; {advice}"
    )


def clips_a_pass(model: Backbone, scale: Scale, *, num_clips: int, most: int) -> int:
    """How many of num_clips clips share a forward pass, up to `most`, none of which is to depend on its neighbours.

    1 where that cannot be had: the features of a video then stay what they were, whoever its neighbours are. Where it
    could not be had anyway (see above), `most`.
    """
    if not keeps_bits(model):
        return most
    if not getattr(model.config, "same_in_any_batch", False):
        return 1
    count = min(most, _MOST_ON_CPU, int(num_clips * _SHARE_TRIED))
    return count if count > 1 and same_alone(model, scale, count) else 1


def keeps_bits(model: Backbone) -> bool:
    """Whether a clip can have the same bits in passes of several sizes, where the model is."""
    return device_of(model).type == "cpu" and precision_of(model) == "fp32"


def same_alone(model: Backbone, scale: Scale, count: int) -> bool:
    """Whether clips of random pixels have the same features, to the last bit, alone and in a pass of `count`.

    The first, the middle and the last are compared.
    """
    shape = (count, scale.num_frames, scale.size, scale.size, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    together = features_of(model, scale, frames, batch_size=count)
    places = sorted({0, count // 2, count - 1})
    alone = features_of(model, scale, frames[places], batch_size=1)
    return together[places].tobytes() == alone.tobytes()
