"""What a cell costs: operations counted with the scan, memory needed, time measured.

Counts and estimates run the model itself on meta tensors, so they hold for every model and need no memory.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from stretchysnake.eval.features.placed_model import device_of, inference
from stretchysnake.eval.sweeps.fused_attention import FUSED, attention_flops, fused_attention
from stretchysnake.eval.sweeps.live_storages import LiveStorages
from stretchysnake.flexibility import Scale
from stretchysnake.models.architectures import build_model
from stretchysnake.models.backbone import Backbone, BackboneConfig
from stretchysnake.ops.native import library as native_library


def _continued_in_depth(measure: Callable[..., tuple[int, ...]]) -> Callable[..., tuple[int, ...]]:
    """`measure` of a deep model of equal blocks from those of 3 and 4: each further one adds the same, 32 take seconds.

    Not before: the first block has no residual, the second no drop path.
    """

    def measured(config: BackboneConfig, *rest) -> tuple[int, ...]:
        if not getattr(config, "equal_blocks", False) or config.depth <= 4:
            return measure(config, *rest)
        three, four = (measure(replace(config, depth=depth), *rest) for depth in (3, 4))
        more = config.depth - 3
        return tuple(low + more * (high - low) for low, high in zip(three, four, strict=True))

    return measured


def count_flops(config: BackboneConfig, scale: Scale) -> int:
    """Floating-point operations of one clip's features, a multiplication and an addition counting as two.

    Counted by torch: products, convolutions and attention as it knows them, the operations of ops/ by their
    formulas. The field's "GFLOPs" are often multiply-adds, half of ours, and leave the scan out (VideoMamba issue
    98); here it is counted as 9·L·Di·S per direction plus the skip and the gate (mamba issue 110).
    """
    return _features_cost(config, scale)[0]


def estimate_memory(
    config: BackboneConfig, scale: Scale, *, batch_size: int, joined: bool = True
) -> int:
    """Bytes that `features` holds at its peak beside the weights, in fp32, for one batch.

    The clips as uint8 and float, and what the operations hold at once: so many times that of one clip, weights
    resized for the scale included. Within a third of `measure_peak_bytes` in
    the tests; bf16 holds less. `joined`: a mixer is one native operation, as on the CPU without gradients.
    """
    return batch_size * _features_cost(config, scale, joined)[1]


@lru_cache(maxsize=4096)
@_continued_in_depth
def _features_cost(config: BackboneConfig, scale: Scale, joined: bool = True) -> tuple[int, int]:
    """Operations, and bytes at the peak, of the features of one clip."""
    # torch's counter hooks modules by what has a gradient, and finds none in a parameter that is a module's input
    model, video = _meta_model(config).eval().requires_grad_(False), _meta_clips(scale, 1)
    counter = FlopCounterMode(display=False, custom_mapping={FUSED.overloadpacket: attention_flops})
    live = LiveStorages((video, *model.state_dict().values()))
    with _operations(joined), fused_attention(), torch.no_grad(), counter, live:
        model.features(video, scale.patch_size, grid="floor")
    return counter.get_total_flops(), live.peak + _clip_bytes(video)


def estimate_training_memory(
    config: BackboneConfig, scale: Scale, *, clips: int, recompute: bool, joined: bool = True
) -> int:
    """Bytes that forward and backward of so many clips hold at their peak, in fp32, beside weights and gradients.

    What waits for the backward, and the widest moment of the way back. `recompute`: blocks are computed again there
    (activation checkpointing). `joined` as in `estimate_memory`.
    """
    return _training_cost(config, scale, clips, recompute, joined)[0]


@lru_cache(maxsize=4096)
@_continued_in_depth
def _training_cost(
    config: BackboneConfig, scale: Scale, clips: int, recompute: bool, joined: bool
) -> tuple[int]:
    model, video = _meta_model(config).train(), _meta_clips(scale, clips)
    model.checkpoint_activations = recompute
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    uncounted = (video, *model.state_dict().values(), *(p.grad for p in model.parameters()))
    with _operations(joined), fused_attention(), LiveStorages(uncounted) as live:
        model(video, scale.patch_size, grid="floor").sum().backward()
    return (live.peak + _clip_bytes(video),)


def measure_milliseconds(model: Backbone, scale: Scale, *, repeats: int = 5) -> float:
    """Median time of `features` on one clip of random pixels, in ms, after one warm-up, on the model's device."""
    return sorted(measure_times(model, scale, repeats=repeats))[repeats // 2]


def measure_times(model: Backbone, scale: Scale, *, repeats: int) -> list[float]:
    """Times of `features` on one clip of random pixels, in ms, after one warm-up, on the model's device."""
    video, times = _random_clip(model, scale), []
    with inference(model) as device:
        for _ in range(repeats + 1):
            started = time.perf_counter()
            model.features(video, scale.patch_size, grid="floor")
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(1e3 * (time.perf_counter() - started))
    return times[1:]


def measure_peak_bytes(model: Backbone, scale: Scale) -> int:
    """Most bytes that tensors hold at once during `features` of one clip, the clip included, beside the weights.

    On the CPU the storages of all tensors made are counted while they live, on a GPU its allocator tells;
    what a kernel needs inside itself is not seen on the CPU.
    """
    video = _random_clip(model, scale)
    clip = video.untyped_storage().nbytes()
    with inference(model) as device:
        model.features(video, scale.patch_size, grid="floor")  # fills the cache of resized weights
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            model.features(video, scale.patch_size, grid="floor")
            return clip + torch.cuda.max_memory_allocated(device) - before
        with LiveStorages((video, *model.state_dict().values())) as live:
            model.features(video, scale.patch_size, grid="floor")
    return clip + live.peak


def _random_clip(model: Backbone, scale: Scale) -> torch.Tensor:
    shape = (1, 3, scale.num_frames, scale.size, scale.size)
    generator = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=generator).to(device_of(model))


def is_joined(model: Backbone) -> bool:
    """`joined` of `estimate_memory` for a model where it is: on the CPU, in every precision of inference."""
    return device_of(model).type == "cpu"


def _meta_model(config: BackboneConfig) -> Backbone:
    return copy.deepcopy(
        _meta_models(config)
    )  # what a pass leaves in a model stays out of the next


@lru_cache(maxsize=16)
def _meta_models(config: BackboneConfig) -> Backbone:
    with torch.device("meta"):
        return build_model(config)


def _meta_clips(scale: Scale, clips: int) -> torch.Tensor:
    return torch.empty(clips, 3, scale.num_frames, scale.size, scale.size, device="meta")


def _clip_bytes(video: torch.Tensor) -> int:
    """Of clips (B, 3, T, H, W) as they are decoded and as the model takes them."""
    return video.numel() * (torch.uint8.itemsize + video.itemsize)


def _operations(joined: bool) -> torch.autocast:
    """A context in which a mixer of meta tensors is one native operation, or the single ones that hold more.

    Single they are under autocast, which leaves meta tensors as they are, and wherever the library is absent.
    """
    joined = joined and native_library.is_available()
    return torch.autocast("cpu", torch.bfloat16, enabled=not joined)
