"""The systems of Table 2 as data: which published weights, and how their authors test them.

The paper names no variants but Hiera-B, -L and FluxViT-S, -B, and neither frames nor crops: each system is taken in
its base form for Kinetics-400, at the scale and with the frames of its own test, of which retrieval sees one view
(docs/table2.md, docs/reproduction.md). All of these files saw RGB; those for Something-Something of TimeSformer,
UniFormer and UniFormerV2, which are not in the table, saw BGR. Pixel statistics are the config's.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stretchysnake.models.architectures import config_named
from stretchysnake.report.tables.paper import MODEL_NAMES

if TYPE_CHECKING:
    from stretchysnake.models.backbone import BackboneConfig

SUFFIXES = (".pth", ".pyth", ".pt", ".torch", ".bin", ".safetensors")


@dataclass(frozen=True, kw_only=True)
class System:
    """One line of Table 2."""

    name: str
    """As in report/tables/paper.py; `model` of its rows."""
    model: str
    """Name of its size for create_model."""
    num_frames: int
    size: int
    sampling: str
    """Frame rule of its own test (data/clips/frame_choice.py)."""
    stride: int = 1
    picture: str = "centre"
    files: tuple[str, ...] = ()
    """Names under which its weights are published, the preferred one first; () where the name is not known to us."""
    published: str
    """Where, in words."""
    companion: str = ""
    """File that its own leaves out and that must lie beside it."""
    test: str
    """Views of its own test and what is averaged over them: for `evaluate`, retrieval has one view."""
    changes: tuple[tuple[str, object], ...] = ()
    """Fields of the config that differ from `model`'s: of made weights."""

    @property
    def label(self) -> str:
        """As printed in the paper, for our two variants too."""
        return MODEL_NAMES.get(self.name, self.name)

    @property
    def own_names(self) -> tuple[str, ...]:
        """What a file may be called that has no published name, or another one."""
        return tuple(self.label.lower() + suffix for suffix in SUFFIXES)

    def config(self) -> "BackboneConfig":
        """What its weights must be."""
        return config_named(self.model, **dict(self.changes))


def _system(name: str, model: str, frames: int, size: int, sampling: str, **fields) -> System:
    scale = {"num_frames": frames, "size": size}
    return System(name=name, model=model, sampling=sampling, **scale, **fields)


SYSTEMS: tuple[System, ...] = (
    _system(
        "Uniformer", "uniformer-base", 16, 224, "uniformer", stride=4,
        files=("uniformer_base_k400_16x4.pth",),
        published="Sense-X/UniFormer, video_classification, model zoo: UniFormer-B, 16x1x4, stride 4 (Google Drive)",
        test="4 clips x 1 crop, logits",
    ),
    _system(
        "MViT", "mvit-base", 16, 224, "mvit", stride=4,
        files=("MVIT_B_16x4.pyth", "MVIT_B_16x4.pth", "mvit_v1_b-dbeb1030.pth"),
        published="facebookresearch/SlowFast, model zoo: MViT-B 16x4 (also pytorchvideo's, torchvision's mvit_v1_b)",
        test="5 clips x 1 crop of a short side of 256, probabilities",
    ),
    _system(
        "Hiera-B", "hiera-base", 16, 224, "mvit", stride=4,
        files=("hiera_base_16x224.pth",),
        published="facebookresearch/hiera, video models: Hiera-B, fine-tuned on K400 (not the MAE file)",
        test="5 clips x 3 crops, probabilities",
    ),
    # The paper's cells for UCF101 and HMDB51 are Table 1's at T = 32, S = 224, with weights trained at T = 16.
    _system(
        "vanilla", "videomamba-middle", 32, 224, "videomamba",
        files=("videomamba_m16_k400_f16_res224.pth",),
        published="OpenGVLab/VideoMamba, video_sm, model zoo: VideoMamba-M, K400, 16 frames, 224 (Hugging Face)",
        test="4 clips x 3 crops, probabilities",
    ),
    _system(
        "TimeSFormer", "timesformer-base", 8, 224, "timesformer", stride=32,
        files=("TimeSformer_divST_8x32_224_K400.pyth",),
        published="facebookresearch/TimeSformer, model zoo: TimeSformer, K400, 8 frames, 224",
        test="1 clip x 3 crops, logits",
    ),
    # Unmarked in the paper's table, and pre-training on ImageNet-21k would be extra data: the 1k file goes first.
    _system(
        "VideoSwin", "video-swin-base", 32, 224, "swin", stride=2,
        files=(
            "swin_base_patch244_window877_kinetics400_1k.pth",
            "swin_base_patch244_window877_kinetics400_22k.pth",
        ),
        published="SwinTransformer/Video-Swin-Transformer, model zoo: Swin-B, K400, pre-trained on ImageNet-1K",
        test="4 clips x 3 crops, probabilities",
    ),
    _system(
        "Hiera-L", "hiera-large", 16, 224, "mvit", stride=4,
        files=("hiera_large_16x224.pth",),
        published="facebookresearch/hiera, video models: Hiera-L, fine-tuned on K400 (not the MAE file)",
        test="5 clips x 3 crops, probabilities",
    ),
    _system(
        "CAST", "cast-base", 16, 224, "cast", stride=4,
        published="KHU-VLL/CAST, model zoo: Kinetics-400, 16x5x3 (Google Drive); CLIP and VideoMAE are inside",
        test="5 clips x 3 crops, probabilities",
    ),
    _system(
        "Omnivore", "omnivore-base", 32, 224, "omnivore",
        files=("swinB_checkpoint.torch", "swinB_In21k_checkpoint.torch"),
        published="facebookresearch/omnivore, model zoo: Swin-B (hub name omnivore_swinB)",
        test="4 clips x 3 crops, logits",
    ),
    _system(
        "EVL", "evl-base", 8, 224, "evl", stride=16,
        published="OpenGVLab/efficient-video-recognition, results: ViT-B/16, 8 x 16 (its README has had no link)",
        companion="ViT-B-16.pt",
        test="3 clips x 1 crop, probabilities",
    ),
    # K400 files that saw Kinetics-710 are extra data, and the paper marks this system with ‡ alone: CLIP's goes first.
    _system(
        "UniformerV2", "uniformer-v2-base", 8, 224, "videomamba",
        files=("k400_uniformerv2_b16_8x224.pth", "k400_k710_uniformerv2_b16_8x224.pth"),
        published="OpenGVLab/UniFormerV2, MODEL_ZOO: K400, UniFormerV2-B/16, 8 frames, CLIP-400M",
        test="4 clips x 3 crops, probabilities",
    ),
    _system(
        "FluxViT-S", "fluxvit-small", 8, 224, "videomamba",
        published="OpenGVLab/FluxViT, single_modality/MODEL_ZOO: K400, FluxViT-S/14, 8x3x4 (Google Drive)",
        test="4 clips x 3 crops, probabilities",
    ),
    # The only K400 configuration in its repository; the files of 8 and 16 frames are tested with stride 16.
    _system(
        "AIM", "aim-base-32", 32, 224, "swin", stride=4,
        published="taoyang1122/adapt-image-models, README: K400, ViT-B/16, 32 frames (Google Drive); CLIP is inside",
        test="3 clips x 1 crop, probabilities",
    ),
    _system(
        "FluxViT-B", "fluxvit-base", 8, 224, "videomamba",
        published="OpenGVLab/FluxViT, single_modality/MODEL_ZOO: K400, FluxViT-B/14, 8x3x4 (Google Drive)",
        test="4 clips x 3 crops, probabilities",
    ),
    # The paper's cells for UCF101, HMDB51 and COIN are Table 1's at T = 64, S = 288; Breakfast's is at 64, 224.
    _system(
        "static_tokens", "videomamba-middle", 64, 288, "uniform", picture="whole",
        published="not published by its authors: train it (stretchysnake train pretrain_static_tokens) and put its "
        "weights.safetensors here as stretchysnake.safetensors",
        test="not said",
    ),
)  # fmt: skip

DATASETS = {
    "ucf101": "test", "hmdb51": "test", "coin": "test", "breakfast": "test", "ssv2": "val", "diving48": "test",
}  # fmt: skip
"""The table's columns, and the subset that asks: the galleries are the training lists."""


def systems_named(names: list[str] | None, systems: tuple[System, ...] = SYSTEMS) -> list[System]:
    """Those of these names, as the paper prints them and in its order, or all; ValueError lists the known ones."""
    if names is None:
        return list(systems)
    known = {system.label.lower(): system for system in systems}
    for name in names:
        if name.lower() not in known:
            listed = ", ".join(system.label for system in systems)
            raise ValueError(f"system ({name}) must be one of: {listed}")
    wanted = {name.lower() for name in names}
    return [system for key, system in known.items() if key in wanted]


def datasets_named(names: list[str] | None) -> list[str]:
    """Those of these names in the table's order, or all; ValueError lists the known ones."""
    for name in names or ():
        if name not in DATASETS:
            raise ValueError(f"dataset ({name}) must be one of: {', '.join(DATASETS)}")
    return [name for name in DATASETS if names is None or name in names]
