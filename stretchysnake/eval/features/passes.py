"""Features of decoded clips, several in a forward pass, and how many may share one.

On a GPU, and in bf16 anywhere, the last bits of a clip's features depend on how many clips its pass has, as products of
other shapes are summed in another order. On the CPU in fp32 they do not where the architecture says so
(`same_in_any_batch` of its config) and the processor's library bears it out: two threads were seen to sum the products
of nine tokens otherwise than those of eighteen, and plain torch operations, in the place of the native ones, those of
one clip otherwise than of two. So it is tried, with the very pass, before it is relied on.
"""

import numpy as np
import torch

from stretchysnake.data.clips.transforms import normalise
from stretchysnake.eval.features.placed_model import device_of, inference, precision_of
from stretchysnake.flexibility import Scale
from stretchysnake.models.backbone import Backbone, pixels_of
from stretchysnake.models.sequences.packed import features_packed
from stretchysnake.ops.out_of_memory import is_out_of_memory, memory_in_words

_MOST_ON_CPU = 16
"""Beyond, a pass of small clips was no faster."""
_SHARE_TRIED = 1 / 32
"""Of the clips, so many are the pass that is tried: trying takes at most a sixteenth of the work."""


def features_of(
    model: Backbone, scale: Scale, frames: np.ndarray | list[np.ndarray], *, batch_size: int
) -> np.ndarray:
    """(n, C) fp32 of frames (n, T, S, S, 3) uint8, or a list of clips (T, H, W, 3), in passes of batch_size clips.

    A pass of several shapes is one forward pass of a model that packs clips, else one for each shape.
    RuntimeError, with what to do, where a pass does not fit in memory.
    """
    pixels, blocks = pixels_of(model.config), []
    if isinstance(frames, list) and len({clip.shape for clip in frames}) == 1:
        frames = np.stack(frames)
    with inference(model) as device:
        for start in range(0, len(frames), batch_size):
            some = frames[start : start + batch_size]
            try:
                if isinstance(some, list):
                    clips = [normalise(torch.from_numpy(c), **pixels).to(device) for c in some]
                    patches = [scale.patch_size] * len(clips)
                    features = features_packed(model, clips, patches, grid="floor")
                else:
                    video = normalise(torch.from_numpy(some), **pixels).to(device)
                    features = model.features(video, scale.patch_size, grid="floor")
                blocks.append(features.float().cpu().numpy())
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise RuntimeError(_too_large(len(some), scale, device)) from None
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
    """Whether random clips come out the same, to the last bit, alone and in a pass of `count`.

    The first, the middle and the last are compared, by all of their tokens where the model has them: the features
    alone, a few numbers, were seen to be equal by luck.
    """
    shape = (count, 3, scale.num_frames, scale.size, scale.size)
    video = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    encode = model.tokens if hasattr(model, "tokens") else model.features
    places = sorted({0, count // 2, count - 1})
    with inference(model) as device:
        together = encode(video.to(device), scale.patch_size, grid="floor")
        alone = [
            encode(video[i : i + 1].to(device), scale.patch_size, grid="floor") for i in places
        ]

    def parts(encoded) -> list[torch.Tensor]:
        return (
            [part for part in encoded if part is not None]
            if isinstance(encoded, tuple)
            else [encoded]
        )

    return all(
        torch.equal(whole[place : place + 1], part)
        for place, one in zip(places, alone, strict=True)
        for whole, part in zip(parts(together), parts(one), strict=True)
    )
