"""Out of memory: what fits instead, found by trying, and which fields to set."""

import torch
import torch.nn.functional as F

from stretchysnake.data.clips.loader import Batch, MixedBatch, groups_of
from stretchysnake.flexibility import Scale
from stretchysnake.ops.out_of_memory import is_out_of_memory, memory_in_words
from stretchysnake.ranks import Runtime
from stretchysnake.train.checkpoints.state import TrainState
from stretchysnake.train.run import TrainRun
from stretchysnake.train.step import (
    compute_logits,
    largest_share,
    packs_groups,
    parts_of,
    passes_of,
)


def out_of_memory_message(
    state: TrainState, batch: Batch | MixedBatch, run: TrainRun, *, runtime: Runtime
) -> str:
    """One line: what did not fit, the most that does, the fields to set. Tries batches with one process only."""
    groups, packs = groups_of(batch), packs_groups(state.model, batch, run)
    batch = max(groups, key=lambda group: group.scale.num_tokens)
    scale = batch.scale
    largest = largest_share(batch, run, runtime)
    clips = max(map(len, parts_of(range(largest), scale, run)))
    failure, of_scale = f"{clips} clips of {_words(scale)} in one pass", ""
    whole = passes_of([(g, range(len(g.labels))) for g in groups], run, packs=packs)
    if len(whole) == 1 < len(groups):  # as many of the largest scale as have the tokens of all
        tokens = sum(len(group.labels) * group.scale.num_tokens for group in groups)
        count = sum(len(group.labels) for group in groups)
        failure = f"{count} clips of {len(groups)} scales in one pass ({tokens} tokens)"
        clips, of_scale = max(2, tokens // scale.num_tokens), f" of {_words(scale)}"
    failure = f"out of memory at step {batch.step}: {failure}"
    if told := memory_in_words(next(state.model.parameters()).device):
        failure += f" ({told})"
    state.optimizer.zero_grad(set_to_none=True)
    if runtime.world_size > 1:
        half = max(1, clips // 2) * scale.num_tokens
        return (
            f"{failure}. Set tokens_per_pass to {half} or less, or activation_checkpointing to true"
        )
    count = clips // 2
    while count >= 1 and not _fits(state, run, scale, count):
        count //= 2
    if count >= 1:
        tokens = count * scale.num_tokens
        return (
            f"{failure}; {count}{of_scale} fit ({tokens} tokens). "
            f"Set tokens_per_pass to {tokens} (the same steps, in parts), "
            f"token_budget to {tokens} (fewer clips at large scales), or activation_checkpointing to true"
        )
    drawn = {scale for step in range(2000) for scale in run.scales_of(step)}
    smaller = sorted(
        (s for s in drawn if s.num_tokens < scale.num_tokens), key=lambda s: -s.num_tokens
    )
    fitting = next((s for s in smaller if _fits(state, run, s, 1)), None)
    largest = (
        f"the largest scale that fits is {_words(fitting)}"
        if fitting
        else "no scale of this run fits"
    )
    return (
        f"{failure}; not even one fits, {largest}. Set activation_checkpointing to true, or take larger scales out of "
        "sets.sizes and sets.frames"
    )


def _fits(state: TrainState, run: TrainRun, scale: Scale, clips: int) -> bool:
    device = next(state.model.parameters()).device
    shape = (clips, 3, scale.num_frames, scale.size, scale.size)
    try:
        logits = compute_logits(state.model, torch.zeros(shape, device=device), scale, run)
        F.cross_entropy(logits, torch.zeros(clips, dtype=torch.int64, device=device)).backward()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        state.optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return True


def _words(scale: Scale) -> str:
    return (
        f"T={scale.num_frames} S={scale.size} P={scale.patch_size} ({scale.num_tokens} tokens each)"
    )
