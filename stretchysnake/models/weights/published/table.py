"""Published weights as data: every VideoMamba file on the Hub, and the peers' files that are there.

    row = published_named("videomamba-m-k400-f16")

All else about a VideoMamba file follows from its name: size, data, T and S. No file could be opened where this was
written: hashes are as the Hub's pages show them, sizes are those of the size class.
"""

import difflib
import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from stretchysnake.models.architectures import config_named
from stretchysnake.models.weights.shipped.shipped import shipped_names

if TYPE_CHECKING:
    from stretchysnake.models.backbone import BackboneConfig


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published file."""

    name: str
    """What we call it."""
    repo: str
    """org/name on the Hub."""
    file: str
    revision: str
    """A commit, where one is known; else "main", and the first use pins what that was."""
    sha256: str | None = None
    """Of the file; None where it is not known, and the first use is remembered."""
    hash_by: str = "the Hub's page"
    licence: str
    megabytes: int | None = None
    trained_on: str
    classes: str | None = None
    """Which list of classes the outputs are in the order of; None for a model without a head."""
    num_classes: int
    num_frames: int
    size: int
    model: str
    """Name of its size for create_model."""
    changes: dict = field(default_factory=dict)
    """Fields of the config that differ from that size's."""

    def config(self) -> "BackboneConfig":
        """What its tensors must have the shapes of."""
        scale = {"num_frames": self.num_frames, "image_size": self.size}
        return config_named(self.model, num_classes=self.num_classes, **scale, **self.changes)


REPO, REVISION = "OpenGVLab/VideoMamba", "69502a732f8f69709cec9ed6c54d5345259fd825"
"""Six commits; this is the head of 2024-04-14, whose only change is the README."""

VIDEOMAMBA = """
t16_k400_f8_res224
t16_k400_f16_res224                 a335d728ae4dbe4f49a435022f95c6cf98108d20fe084120db1f18cb73e84f4a
t16_k400_f32_res224
t16_k400_f64_res224
t16_k400_f64_res224to384
s16_k400_f8_res224                  115994bffbd4123e35a15690b90470e65318326b82ecca718a03a61079770a28
s16_k400_f16_res224                 311633e1a590744b1e5ac6bb50fe5eab1919b201e47bb6ed2d9e1e06813d64ac
s16_k400_f32_res224
s16_k400_f64_res224
s16_k400_f64_res224to384
m16_k400_f8_res224                  591c27b89a2d45e9b2d52ca98562ef1835d4bd60057e12f0126d5e3f75fb5121
m16_k400_f16_res224                 727c0fc98f0651efdfefb66109d29c9a2373f42ddfc137e8fc2535750dd0b893
m16_k400_f32_res224                 a7e5787290af5e99a18ddb443b692fc57be6c794ead92dbf31b27739438b7f6f
m16_k400_f64_res224
m16_k400_f64_res224to384
m16_k400_mask_pt_f8_res224          8815a5a872211b23a86ff62157cf1aaeb7b8880dd0ab0e96f519bcd9b1d0350b
m16_k400_mask_ft_f8_res224          a101883c7ce8794b887469bcbbce7e09c0c6962dfae23d30223f0dd96275272f
m16_k400_mask_ft_f16_res224
m16_k400_mask_ft_f32_res224         e6fd583247fa62079c3477f446683d776b14cd4455187dad55d233f6a2db7a99
m16_k400_mask_ft_f64_res224         d6dee9b88c69ebb372ab21102200a6909cf55b6934d6e13c8e00eed406bf5a5f
m16_k400_mask_ft_f64_res224to384    9281c3897b234d06fe1bab9758a448865b61bd6ade16a72405700d4d8a1f19f0
t16_ssv2_f8_res224
t16_ssv2_f16_res224
t16_ssv2_f16_res224to288
s16_ssv2_f8_res224
s16_ssv2_f16_res224
s16_ssv2_f16_res224to288
m16_ssv2_f8_res224
m16_ssv2_f16_res224
m16_ssv2_f16_res224to288            099d4290c79edc99190ed1e3d6e7e5d2a2af0fd173312f6fd61a9dc2ce4121f5
m16_ssv2_mask_pt_f8_res224          585b31101edfc65fa13932a3d85a45ca0c8f4c3070608bf5cca6e6b70bfd3ae3
m16_ssv2_mask_ft_f8_res224
m16_ssv2_mask_ft_f16_res224
m16_ssv2_mask_ft_f16_res224to288    1dadc9b12297a70290c4b9e29f2e22bb26493963c4e253526bf9e30711fb29b6
t16_breakfast_f32_res224            89f81d46aec58cfee6e8d9430b5ae98870180bf6d89e6d5ac26b81dd8eccf760
t16_breakfast_f64_res224
s16_breakfast_f32_res224            4dd56a29889ce72141e07e9f70c7593bfbbc0976f718631bc730c9951ea15b0a
s16_breakfast_f64_res224            8bd32823a8f1d4a56b091b6d3d67ac314b15346effb64a6344b92c34392aff5a
m16_breakfast_f32_res224            3dc7bea0e41c776e50c62e1e62fa4219c4aa0082cdbd4d61407809952722fd75
m16_breakfast_f64_res224            72b3b441b3c597746b78f41223cee64842cfe6d29b73e02682f984896a31332e
m16_breakfast_mask_ft_f32_res224    dddeab6c6c34e25b1288bbcf7eebf39a54f3082bccc123f22bf811642ccd6144
m16_breakfast_mask_ft_f64_res224    ed3b16268e56c056173f41919d90b4e3ce3a36aca5d071715585250ca4fe9c3f
t16_coin_f32_res224
t16_coin_f64_res224
s16_coin_f32_res224
s16_coin_f64_res224                 b24d107262f8d9f1d792de5a319cda246d64796a95eaec014a49fbbf280468e8
m16_coin_f32_res224                 776ec471383f761fd4f01ec9f542b07f5806a48901d7893c59288ee861bbc76c
m16_coin_f64_res224
m16_coin_mask_ft_f32_res224         2e6bf63c788829312fe765bfb9907bae26e9db256fc513f9ec0da7045aaacb78
m16_coin_mask_ft_f64_res224         99bac5cfc0442bca4446ba6d2bf1c37e217be8facaa16a236c97e563e925c02e
t16_in1k_res224
t16_in1k_res224to448to576
s16_in1k_res224                     267741f86855ee475117813d1f33fef05c291e3f41d30840fba892fbc5ca8966
s16_in1k_res224to448                148c247f0108a33dc10d8a12e478cbc80b84dde4d184de4398b9f76825058cc9
s16_in1k_res224to448to576
m16_in1k_res224                     056e3e36642966756dc4e5d7017fb5af5bf07df7911dd2abc38582d26b7b0d87
m16_in1k_res224to448                e31b23b1be9b9e6a9b0866a4d641cfc027275615994a01e41517b58d115b3eb0
m16_in1k_res224to448to576
b16_in1k_res224                     fe31477a629627ea85c0a68ea9b2066725ee896a362e8ab44209050accb44d99
m16_5M_f8_res224
m16_17M_f8_res224                   1a692fe68937c3a150e6d53b3fa21a0b08fdbc13b431df497818bc23eaf4ed65
m16_25M_f8_res224                   be3330d1e5bdcadf2de3087879d2c88a4eb3b2005eed26e551d549e813c3b010
"""
"""videomamba_NAME.pth and its SHA-256, where known; that of t16_k400_f16 is by a third party."""

_SIZES = {"t": ("tiny", 28), "s": ("small", 103), "m": ("middle", 297), "b": ("base", 392)}
_DATA = {
    "k400": ("Kinetics-400", "kinetics-400", 400),
    "ssv2": ("Something-Something V2", "ssv2", 174),
    "breakfast": ("Breakfast", "breakfast", 10),
    "coin": ("COIN", "coin", 180),
    "in1k": ("ImageNet-1K", "imagenet-1k", 1000),
}
"""Part of a file's name -> (trained on, list of classes, how many)."""
_PARTS = re.compile(
    r"(?P<size>[tsmb])16_(?P<data>[a-z0-9]+|\d+M)(_mask_(?P<mask>pt|ft))?(_f(?P<frames>\d+))?_res(?P<sides>[\dto]+)"
)

PEERS = """
hiera-base-k400           hiera-base       16  204  CC-BY-NC-4.0  facebook/hiera_base_16x224.mae_k400_ft_k400   model.safetensors
hiera-large-k400          hiera-large      16  852  CC-BY-NC-4.0  facebook/hiera_large_16x224.mae_k400_ft_k400  model.safetensors
uniformer-small-k400-8x8  uniformer-small   8    ?  Apache-2.0    Sense-X/uniformer_video  uniformer_small_k400_8x8.pth
uniformer-small-k400-16x4 uniformer-small  16    ?  Apache-2.0    Sense-X/uniformer_video  uniformer_small_k400_16x4.pth
uniformer-small-k400-16x8 uniformer-small  16    ?  Apache-2.0    Sense-X/uniformer_video  uniformer_small_k400_16x8.pth
uniformer-base-k400-8x8   uniformer-base    8    ?  Apache-2.0    Sense-X/uniformer_video  uniformer_base_k400_8x8.pth
uniformer-base-k400-16x4  uniformer-base   16    ?  Apache-2.0    Sense-X/uniformer_video  uniformer_base_k400_16x4.pth
uniformer-base-k400-16x8  uniformer-base   16    ?  Apache-2.0    Sense-X/uniformer_video  uniformer_base_k400_16x8.pth
uniformer-base-k400-32x4  uniformer-base   32    ?  Apache-2.0    Sense-X/uniformer_video  uniformer_base_k400_32x4.pth
"""  # noqa: E501 one line a file
"""Peers on the Hub, all of Kinetics-400 at 224 px; neither their commits nor their hashes are known to us.

Our name, name of the size, T, MB, licence, repository, file.
"""


@cache
def published() -> dict[str, Published]:
    """Name -> file, VideoMamba's first."""
    rows = [_videomamba(*line.split()) for line in VIDEOMAMBA.split("\n") if line]
    rows += [_peer(*line.split()) for line in PEERS.split("\n") if line]
    return {row.name: row for row in rows}


def published_named(name: str) -> Published | None:
    """The file of our name for it, or of its own file name (VideoMamba's also without .pth); None where unknown."""
    if name in published():
        return published()[name]
    own_names = {row.file: row for row in published().values() if row.repo == REPO}
    return own_names.get(name) or own_names.get(f"{name}.pth")


def near_names(name: str) -> list[str]:
    """At most three names, published or the package's own, that look like this one."""
    names = [*shipped_names(), *published()]
    return difflib.get_close_matches(name.lower().replace("_", "-"), names, n=3, cutoff=0.6)


def _videomamba(stem: str, sha256: str | None = None) -> Published:
    parts = _PARTS.fullmatch(stem)
    assert parts is not None, stem
    size, megabytes = _SIZES[parts["size"]]
    mask, frames, sides = parts["mask"], parts["frames"], parts["sides"].split("to")
    trained_on, classes, num_classes = _DATA.get(parts["data"], (None, None, 0))
    if trained_on is None:
        trained_on, megabytes = f"{parts['data']} videos and images with text", 381
    if mask is not None:
        trained_on += ", masked" if mask == "pt" else ", after masked pre-training"
    if mask == "pt":
        classes, num_classes = None, 0
    words = [
        "videomamba",
        parts["size"],
        parts["data"].lower(),
        *([f"mask-{mask}"] if mask else []),
    ]
    words += [f"f{frames}"] if frames and mask != "pt" else []
    words += sides[-1:] if len(sides) > 1 else []
    return Published(
        name="-".join(words),
        repo=REPO,
        file=f"videomamba_{stem}.pth",
        revision=REVISION,
        sha256=sha256,
        hash_by="a third party" if stem == "t16_k400_f16_res224" else "the Hub's page",
        licence="Apache-2.0",
        megabytes=megabytes,
        trained_on=trained_on,
        classes=classes,
        num_classes=num_classes,
        num_frames=int(frames or 1),
        size=int(sides[-1]),
        model=f"videomamba-{'middle' if size == 'base' else size}",
        changes={"embed_dim": 768, "depth": 24} if size == "base" else {},
    )


def _peer(
    name: str, model: str, frames: str, megabytes: str, licence: str, repo: str, file: str
) -> Published:
    trained_on, classes, num_classes = _DATA["k400"]
    return Published(
        name=name,
        repo=repo,
        file=file,
        revision="main",
        licence=licence,
        megabytes=int(megabytes) if megabytes.isdigit() else None,
        trained_on=trained_on,
        classes=classes,
        num_classes=num_classes,
        num_frames=int(frames),
        size=224,
        model=model,
    )
