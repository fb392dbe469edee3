"""Features of clips longer than memory: window by window, or exactly, layer by layer through a file.

B batch, L tokens of the whole clip, C width, n tokens of one part.

Both take the clip as an iterator of parts, (B, 3, t, H, W) each, and hold one part at a time.

**Windows** (`window_features`). Every window is a clip of its own, with [CLS] first and positions of its own,
except that the forward scan and convolution of every layer go on from the window before. So the [CLS] token of a
window has read all of the past (forwards, through the state) and all of the window (backwards). Backwards a window
begins at its own last token: it knows nothing of the windows after it. This can follow a stream.

**Exact** (`exact_features`). The feature of the whole clip as one sequence. Layer by layer, each direction reads the
sequence part by part and carries its state; the residual stream waits in a temporary file. One sweep over the file
finishes one layer and starts the next in the same direction, and sweeps alternate between forwards and backwards:
depth + 1 sweeps, of which a last one forwards reads the first part only, since the feature is token 0.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import torch
from torch import Tensor

from stretchysnake.models.backbone import Backbone
from stretchysnake.models.mixer import Block
from stretchysnake.models.videomamba import VideoMamba
from stretchysnake.ops.bidirectional_scan.direction import Carry


def check_recurrent(model: Backbone) -> None:
    """ValueError unless the model carries a state from window to window."""
    if not isinstance(model, VideoMamba):
        raise ValueError(
            f"long videos by a carried state need a recurrent model; {model.config.architecture} is none: "
            "use windows of embed (stretchysnake embed --window SECONDS)"
        )


def window_features(
    model: VideoMamba,
    windows: Iterable[Tensor],
    patch_size: int | None = None,
    *,
    grid: str = "exact",
) -> Iterator[Tensor]:
    """Yield the feature (B, C) of each window, in order; arguments as in `VideoMamba.tokens`."""
    _check_evaluating(model)
    carries: list[Carry] = []
    for video in windows:
        with torch.inference_mode():
            x, residual = model.embed_part(video, patch_size, grid=grid), None
            if not carries:
                carries = [layer.mixer.fresh_carry(x) for layer in model.layers]
            for i, layer in enumerate(model.layers):
                x, residual, carries[i] = layer.window(x, residual, carries[i])
            feature = model.norm_f(residual[:, 0] + x[:, 0])
        yield feature


@torch.inference_mode()
def exact_features(
    model: VideoMamba,
    parts: Iterable[Tensor],
    patch_size: int | None = None,
    *,
    num_frames: int,
    grid: str = "exact",
    scratch: str | os.PathLike | None = None,
    progress: Callable[[str], None] | None = None,
) -> Tensor:
    """`model.features` (B, C) of a clip of num_frames frames given in parts, in memory that does not grow with it.

    scratch: the folder for the temporary file, 2·B·L·C numbers of at least fp32; None takes the system's. The file has
    no name and vanishes with the process. ValueError when the folder has less room than that, or when the parts do not
    add up to num_frames.
    """
    _check_evaluating(model)
    layers, first = list(model.layers), 0
    with tempfile.TemporaryFile(dir=scratch) as file:
        stored = _StoredParts(file)
        start = _Direction(layers[0], reverse=False)
        for video in parts:  # sweep 0: embed and start layer 0
            residual = model.embed_part(video, patch_size, grid=grid, first=first, of=num_frames)
            residual = residual.to(torch.promote_types(residual.dtype, torch.float32))
            if not first:
                _check_room(residual, video.shape[2] / num_frames, scratch)
            first += video.shape[2]
            stored.append(residual, start.share(residual))
            if progress:
                progress(f"layer 1 of {len(layers)}: {first} of {num_frames} frames")
        if first != num_frames:
            raise ValueError(
                f"parts ({first} frames) must add up to num_frames ({num_frames}); pass the number that is there"
            )
        for number in range(1, len(layers) + 1):
            reverse, last = number % 2 == 1, number == len(layers)
            end = _Direction(layers[number - 1], reverse=reverse)
            start = None if last else _Direction(layers[number], reverse=reverse)
            for k in stored.order(reverse=reverse, only_first=last and not reverse):
                residual, share = stored.read(k)
                residual = residual + (share + end.share(residual))
                if start:
                    stored.write(k, residual, start.share(residual))
                if progress:
                    progress(f"layer {number} of {len(layers)}: part {k + 1} of {stored.count}")
        return model.norm_f(
            residual[:, 0]
        )  # whichever way, the last sweep ends with the first part


class _Direction:
    """One direction of one block, read part by part."""

    def __init__(self, block: Block, *, reverse: bool):
        self.block, self.reverse = block, reverse
        self.carry: Carry | None = None

    def share(self, residual: Tensor) -> Tensor:
        """This direction's share of the mixer's output for the next part, in the residual's dtype."""
        x, mixer = self.block.norm(residual), self.block.mixer
        carry = mixer.fresh_carry(x) if self.carry is None else self.carry
        share, self.carry = mixer.one_direction(x, carry, reverse=self.reverse)
        return share.to(residual.dtype)


class _StoredParts:
    """Residual stream and share of each part, one after another in a file.

    Read and written, not mapped: pages of a mapping would count as memory of the process.
    """

    def __init__(self, file: BinaryIO):
        self.file = file
        self.offsets = [0]
        self.shapes: list[torch.Size] = []
        self.like = torch.empty(0)

    @property
    def count(self) -> int:
        return len(self.shapes)

    def order(self, *, reverse: bool, only_first: bool) -> Iterable[int]:
        parts = range(1 if only_first else self.count)
        return reversed(parts) if reverse else parts

    def append(self, residual: Tensor, share: Tensor) -> None:
        self.like = residual.new_empty(0)
        self.shapes.append(residual.shape)
        self.offsets.append(self.offsets[-1] + 2 * residual.nbytes)
        self.write(self.count - 1, residual, share)

    def write(self, k: int, residual: Tensor, share: Tensor) -> None:
        self.file.seek(self.offsets[k])
        for tensor in (residual, share):
            self.file.write(memoryview(tensor.contiguous().cpu().numpy()).cast("B"))

    def read(self, k: int) -> tuple[Tensor, Tensor]:
        both = torch.empty(2, *self.shapes[k], dtype=self.like.dtype)
        self.file.seek(self.offsets[k])
        count = self.file.readinto(memoryview(both.numpy()).cast("B"))
        assert count == both.nbytes, (k, count, both.nbytes)
        residual, share = both.to(self.like.device)
        return residual, share


def _check_room(residual: Tensor, part: float, scratch: str | os.PathLike | None) -> None:
    folder = tempfile.gettempdir() if scratch is None else scratch
    needed, free = 2 * residual.nbytes / part, shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"scratch ({folder}) has {free / 2**30:.1f} GiB free, this clip needs {needed / 2**30:.1f} GiB there; "
            "choose another folder, fewer frames or a smaller size"
        )


def _check_evaluating(model: VideoMamba) -> None:
    if model.training:
        raise ValueError("model (in training mode) must be in evaluation mode; call model.eval()")
