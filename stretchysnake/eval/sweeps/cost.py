"""What a cell costs: operations counted with the scan, memory needed, time measured.

B clips, L tokens, C width, Di inner width, S state size, R rank of Δ.
"""

import time
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stretchysnake.flexibility import Scale
from stretchysnake.models.config import VideoMambaConfig
from stretchysnake.models.videomamba import VideoMamba
from stretchysnake.ops.flops import selective_scan_flops
from stretchysnake.ops.native import library as native_library


def count_flops(config: VideoMambaConfig, scale: Scale) -> int:
    """Floating-point operations of one clip's features, a multiplication and an addition counting as two.

    The field's "GFLOPs" are often multiply-adds, half of ours, and leave the scan out (VideoMamba issue 98);
    here it is counted as 9·L·Di·S per direction plus the skip and the gate (mamba issue 110).
    """
    C, Di, S, R = (
        config.embed_dim,
        config.expand * config.embed_dim,
        config.state_size,
        config.rank_of_delta,
    )
    patches = scale.num_tokens // config.tubelet_size
    L = 1 + patches
    embed = 2 * patches * 3 * config.tubelet_size * scale.patch_size**2 * C
    direction = (
        2 * L * Di * config.conv_width
        + 2 * L * Di * (R + 2 * S)
        + 2 * L * R * Di
        + selective_scan_flops(1, L, Di, S)
    )
    layer = 2 * L * C * 2 * Di + 2 * direction + 2 * L * Di * C
    return embed + config.depth * layer


def estimate_memory(config: VideoMambaConfig, scale: Scale, *, batch_size: int) -> int:
    """Bytes that `features` holds at its peak beside the weights, in fp32, for one batch.

    The clip as uint8 and float, and the widest moment of one block: its input and residual, the new
    residual and its norm, both halves of in_proj, and of the two directions u, [dt, B, C] and their sum;
    without the native operation also delta and each direction's output. Within a third of
    `measure_peak_bytes` in the tests.
    """
    C, Di = config.embed_dim, config.expand * config.embed_dim
    widest = 5 * Di + 2 * (config.rank_of_delta + 2 * config.state_size)
    if not native_library.is_available():
        widest = 8 * Di
    tokens = batch_size * (1 + scale.num_tokens // config.tubelet_size)
    pixels = batch_size * 3 * scale.num_frames * scale.size**2
    return 4 * tokens * (4 * C + widest) + 5 * pixels


def measure_milliseconds(model: VideoMamba, scale: Scale, *, repeats: int = 5) -> float:
    """Median time of `features` on one clip of random pixels, in ms, after one warm-up, on the model's device."""
    return sorted(measure_times(model, scale, repeats=repeats))[repeats // 2]


def measure_times(model: VideoMamba, scale: Scale, *, repeats: int) -> list[float]:
    """Times of `features` on one clip of random pixels, in ms, after one warm-up, on the model's device."""
    video, device = _random_clip(model, scale), next(model.parameters()).device
    times = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            started = time.perf_counter()
            model.features(video, scale.patch_size, grid="floor")
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(1e3 * (time.perf_counter() - started))
    return times[1:]


def measure_peak_bytes(model: VideoMamba, scale: Scale) -> int:
    """Most bytes that tensors hold at once during `features` of one clip, the clip included, beside the weights.

    On the CPU the storages of all tensors made are counted while they live, on a GPU its allocator tells;
    what a kernel needs inside itself is not seen on the CPU.
    """
    video, device = _random_clip(model, scale), next(model.parameters()).device
    clip = video.untyped_storage().nbytes()
    with torch.inference_mode():
        model.features(video, scale.patch_size, grid="floor")  # fills the cache of resized weights
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            model.features(video, scale.patch_size, grid="floor")
            return clip + torch.cuda.max_memory_allocated(device) - before
        known = {t.untyped_storage().data_ptr() for t in (video, *model.state_dict().values())}
        with _LiveStorages(known) as live:
            model.features(video, scale.patch_size, grid="floor")
    return clip + live.peak


class _LiveStorages(TorchDispatchMode):
    """Sums the storages that operations make, from their first tensor to their release."""

    def __init__(self, known: set[int]):
        super().__init__()
        self.live: set[int] = set(known)
        self.now = self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        address, size = storage.data_ptr(), storage.nbytes()
        if address in self.live or not size:
            return
        self.live.add(address)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, address, size)

    def _release(self, address: int, size: int) -> None:
        self.live.discard(address)
        self.now -= size


def _random_clip(model: VideoMamba, scale: Scale) -> torch.Tensor:
    shape = (1, 3, scale.num_frames, scale.size, scale.size)
    generator = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=generator).to(next(model.parameters()).device)
