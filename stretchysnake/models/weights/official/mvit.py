"""Published MViT weights: SlowFast's of now and of 2021, pytorchvideo's and torchvision's, under SlowFast's names."""

import math
import re

import torch
from torch import Tensor

from stretchysnake.models.transformers.layers.separable_stem import fit_stem, stem_sizes

_NAMES = (
    # torchvision
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^pos_encoding\.class_token$", "cls_token"),
    (r"^pos_encoding\.(spatial|temporal)_pos$", r"pos_embed_\1"),
    (r"^pos_encoding\.class_pos$", "pos_embed_class"),
    (r"\.attn\.pool_([qkv])\.pool\.", r".attn.pool_\1."),
    (r"\.attn\.pool_([qkv])\.norm_act\.0\.", r".attn.norm_\1."),
    (r"\.attn\.project\.0\.", ".attn.proj."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
    (r"^(blocks\.\d+)\.project\.", r"\1.proj."),
    (r"^head\.1\.", "head.projection."),
    # pytorchvideo
    (r"^patch_embed\.patch_model\.", "patch_embed.proj."),
    (r"^cls_positional_encoding\.", ""),
    (r"^norm_embed\.", "norm."),
    (r"^head\.proj\.", "head.projection."),
)
_TABLES = ("cls_token", "pos_embed_class", "pos_embed_spatial", "pos_embed_temporal")


def sizes_of(state: dict[str, Tensor]) -> dict:
    """The fields of an MViTConfig that a flat state dict of any layout tells; ValueError names what is missing."""
    others = "conv_proj.weight" in state or "patch_embed.patch_model.weight" in state
    separate = "blocks.0.attn.q.weight" in state
    state, _ = renamed(state)
    first = ("attn.pool_k.weight", "attn.qkv.weight", "mlp.fc1.weight")
    needed = ("patch_embed.proj.weight", *_TABLES, *(f"blocks.0.{name}" for name in first))
    missing = [name for name in needed if name not in state]
    if missing:
        raise ValueError(f"these are not MViT weights: {', '.join(missing)} missing")
    blocks = {int(name.split(".")[1]) for name in state if re.match(r"blocks\.\d+\.", name)}
    pooling = tuple(sorted(i for i in blocks if f"blocks.{i}.attn.pool_q.weight" in state))
    sizes = stem_sizes(state)
    unpooled = [i for i in blocks if f"blocks.{i}.attn.pool_k.weight" not in state]
    # the stride is no shape: it comes down to 1 at the last pooling, or where keys are no longer pooled
    halvings = sum(i <= min(unpooled, default=max(blocks)) for i in pooling)
    # SlowFast's norms after pooling had 1e-5 while its files had these two forms; the others' files never had.
    of_2021 = not others and bool(unpooled or separate)
    hidden, width = state["blocks.0.mlp.fc1.weight"].shape
    head = state.get("head.projection.weight")
    return {
        **sizes,
        "depth": 1 + max(blocks),
        "num_heads": width // state["blocks.0.attn.pool_k.weight"].shape[0],
        "pool_blocks": pooling,
        "kv_stride": 2**halvings,
        "pool_unstrided": not unpooled,
        "pool_norm_eps": 1e-5 if of_2021 else 1e-6,
        "mlp_ratio": hidden // width,
        "image_size": _side(state) * sizes["patch_size"],
        "num_classes": 0 if head is None else head.shape[0],
    }


def fitted(state: dict[str, Tensor], config) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict under SlowFast's names, stem and tables of the config's sizes, and a note for each change."""
    state, notes = renamed(state)
    side = _side(state) if "pos_embed_spatial" in state else None
    fit_stem(state, config, side and (side, side), notes)
    return state, notes


def renamed(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict under SlowFast's current names, q, k and v in one; notes of what was joined or left out."""
    tensors, notes = {}, []
    doubles = [name for name in state if "._attention_pool_" in name]
    if doubles:
        notes.append(
            f"{len(doubles)} tensors of _attention_pool_* left out: pool_* and norm_* hold the same"
        )
    for theirs, tensor in state.items():
        if theirs in doubles:
            continue
        name = theirs
        for pattern, ours in _NAMES:
            name = re.sub(pattern, ours, name)
        if name in tensors:
            raise ValueError(f"the weights hold {name} twice, once as {theirs}")
        tensors[name] = tensor
    for name in _TABLES:
        if name in tensors and tensors[name].dim() < 3:  # torchvision's lack the leading axes
            tensors[name] = tensors[name].reshape(*[1] * (3 - tensors[name].dim()), *tensors[name].shape)  # fmt: skip
    queries = [
        name for name in tensors if re.search(r"^blocks\.\d+\.attn\.q\.(weight|bias)$", name)
    ]
    for name in queries:
        parts = [name.replace(".attn.q.", f".attn.{part}.") for part in "qkv"]
        if len({tensors[part].shape if part in tensors else None for part in parts}) == 1:
            tensors[name.replace(".attn.q.", ".attn.qkv.")] = torch.cat(
                [tensors.pop(p) for p in parts]
            )
    if queries:
        notes.append("attn.q, attn.k and attn.v joined to attn.qkv")
    return tensors, notes


def _side(state: dict[str, Tensor]) -> int:
    count = state["pos_embed_spatial"].shape[1]
    side = math.isqrt(count)
    if side * side != count:
        raise ValueError(f"pos_embed_spatial holds {count} positions; a square number is needed")
    return side
