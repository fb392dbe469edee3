"""Writes the table of sizes in docs/backbones.md: parameters and GMACs of every published size, counted on the model.

    python benchmarks/backbone_sizes.py            # writes the rows between the two marks of the page

Nothing is allocated: models and clips are on torch's meta device. Beside them stand the numbers of the official code,
counted on it by those who read it, where there are any.
"""

from pathlib import Path

import torch

from stretchysnake.eval.sweeps.cost import count_flops
from stretchysnake.models.architectures import build_model, config_named, model_names

PAGE = Path(__file__).parents[1] / "docs" / "backbones.md"
MARKS = ("<!-- sizes: written by benchmarks/backbone_sizes.py -->", "<!-- end of sizes -->")
HEAD = (
    "| `create_model(...)` | native T × S², P | parameters, M | official | GMACs | official |",
    "|---|---|---|---|---|---|",
)
OFFICIAL: dict[str, tuple[float | None, float | None]] = {
    "aim-base": (96.76, 202.1),
    "aim-base-16": (None, 404.6),
    "aim-base-32": (None, 811.1),
    "aim-base-ssv2": (100.14, 207.7),
    "aim-large": (341.5, 3743.6),
    "cast-base": (217.40, 390.5),
    "cast-base-ek100": (216.81, None),
    "evl-base": (118.98, 151.3),
    "evl-base-16": (None, 303.0),
    "evl-base-32": (None, 606.5),
    "fluxvit-small": (28.85, 84.6),
    "fluxvit-base": (104.56, 259.7),
    "hiera-base": (51.09, 101.73),
    "hiera-large": (213.09, 412.13),
    "mvit-base": (36.61, 70.60),
    "mvit-base-2021": (36.60, 70.52),
    "omnivore-base": (89.07, 320.36),
    "timesformer-base": (121.57, 195.83),
    "timesformer-hr": (122.02, 1702.69),
    "timesformer-large": (121.63, 2379.86),
    "uniformer-small": (21.40, 41.66),
    "uniformer-base": (49.81, 96.55),
    "uniformer-v2-base": (114.55, 148.10),
    "uniformer-v2-base-16": (None, 296.19),
    "uniformer-v2-base-ssv2": (162.99, 187.21),
    "uniformer-v2-large": (354.10, 665.63),
    "uniformer-v2-large-336": (354.43, 6267.81),
    "uniformer-v2-large-336-frozen": (354.43, 1566.98),
    "video-swin-tiny": (28.16, 87.76),
    "video-swin-small": (49.82, 165.68),
    "video-swin-base": (88.05, 281.33),
}
"""Millions of parameters and GMACs of one view at the native scale, of the official code; None: not counted there.

FluxViT's are those at 2,048 tokens and the embedding of the tokens that are dropped.
"""


def published_names() -> list[str]:
    """Every size but the nano ones, which are our own."""
    return [name for name in model_names() if not name.endswith("-nano")]


def parameters_of(name: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(config_named(name)).parameters())


def gmacs_of(name: str) -> float:
    config = config_named(name)
    return count_flops(config, config.native) / 2e9


def row(name: str) -> str:
    native = config_named(name).native
    parameters, gmacs = OFFICIAL.get(name, (None, None))
    cells = (
        f"`{name}`",
        f"{native.num_frames} × {native.size}², {native.patch_size}",
        f"{parameters_of(name) / 1e6:.2f}",
        "" if parameters is None else f"{parameters:.2f}",
        f"{gmacs_of(name):.2f}",
        "" if gmacs is None else f"{gmacs:.2f}",
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    before, rest = PAGE.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    rows = "\n".join((*HEAD, *map(row, published_names())))
    PAGE.write_text(f"{before}{MARKS[0]}\n{rows}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
