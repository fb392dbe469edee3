"""The paper's Tables 1, 2, A1, A2 and A3 as data, typed from its text; accuracies in percent, as printed.

Nothing here was measured by us. `paper_numbers()` gives every cell; where the paper's own averages and differences do
not follow from its cells is in docs/reproduction.md.
"""

from __future__ import annotations

from typing import NamedTuple

SIZES = (96, 112, 128, 192, 224, 288, 384, 448)
SIZES_A3 = (112, 192, 224, 288, 448)
PATCHES_A2 = (7, 8, 9, 14, 16, 21, 27, 32)
DATASETS = ("breakfast", "coin", "ucf101", "hmdb51")
MODEL_NAMES = {"vanilla": "VideoMamba", "static_tokens": "StretchySnake"}
"""Our name of a model -> the paper's; flexivit and flex_all are FlexiViT and Flex-All there."""


class PaperNumber(NamedTuple):
    """One printed cell."""

    table: str
    """`1`, `2`, `A1`, `A2` or `A3`."""
    dataset: str
    model: str
    """Our variant's name, or the paper's name of another method (Table 2)."""
    column: str
    """The column's head: pixels, or the data set or task."""
    value: float | None
    """Percent; None where the paper prints OOM."""
    num_frames: int | None = None
    """T; None where the table has no T."""
    size: int | None = None
    patch_size: int | None = None
    """Only in Table A2."""

    @property
    def row(self) -> str:
        frames = "" if self.num_frames is None else f", T = {self.num_frames}"
        return f"{MODEL_NAMES.get(self.model, self.model)}{frames}"


# Data set -> T -> (VideoMamba's cells, StretchySnake's cells, the printed average difference).
_TABLE_1 = {
    "breakfast": {
        8: ("22.0 23.1 24.9 31.9 43.2 40.7 34.5 30.5", "49.4 50.0 49.7 49.1 53.7 52.8 51.4 47.7", 19.1),
        16: ("22.0 22.9 22.0 37.5 41.8 42.1 33.3 33.1", "49.4 49.2 48.3 50.3 53.4 52.5 48.6 50.3", 18.4),
        32: ("20.6 23.7 26.0 40.1 44.4 46.6 35.9 31.4", "55.9 56.0 54.5 55.6 56.0 56.0 59.0 52.8", 22.1),
        64: ("23.4 24.0 25.7 37.0 42.7 42.7 OOM OOM", "54.2 57.9 57.9 56.0 60.2 57.9 54.8 56.0", 24.8),
    },
    "coin": {
        8: ("43.1 49.5 52.7 58.6 62.1 61.2 58.7 56.5", "70.2 70.4 71.7 71.5 72.8 73.1 71.6 71.5", 16.3),
        16: ("50.5 55.0 57.6 62.1 64.8 64.7 61.2 58.6", "74.6 74.9 74.6 75.7 75.9 75.7 75.5 74.6", 13.6),
        32: ("53.0 58.6 60.0 63.5 65.4 64.7 62.4 59.8", "76.9 76.5 78.9 79.5 79.0 79.4 79.2 77.8", 17.5),
        64: ("53.6 58.3 61.5 65.6 65.8 65.6 OOM OOM", "78.8 78.8 79.2 80.0 79.5 80.0 79.5 78.9", 17.7),
    },
    "ucf101": {
        8: ("64.7 75.4 82.2 88.7 90.2 91.0 88.2 85.7", "92.4 92.4 92.7 92.7 93.4 93.1 93.0 92.8", 16.8),
        16: ("66.8 77.0 82.4 89.9 91.7 91.4 89.9 87.6", "92.0 93.0 93.4 94.3 93.4 94.0 94.0 93.8", 8.9),
        32: ("68.1 77.1 82.7 89.6 91.8 91.7 90.0 86.8", "92.7 93.0 93.3 93.4 93.9 94.0 94.0 94.0", 8.8),
        64: ("65.8 76.4 81.3 89.5 91.5 91.2 OOM OOM", "93.0 93.2 93.1 93.6 94.3 94.5 93.8 94.3", 11.0),
    },
    "hmdb51": {
        8: ("36.5 44.4 49.1 57.8 58.7 58.7 55.3 52.0", "61.6 62.7 63.2 64.2 63.2 62.9 62.1 62.2", 15.3),
        16: ("35.0 42.8 49.8 56.5 58.2 57.8 53.7 51.6", "60.6 63.3 63.6 64.4 63.0 64.4 64.0 62.1", 12.5),
        32: ("36.6 45.6 50.0 59.1 60.2 59.5 55.3 50.5", "63.8 64.7 65.3 65.7 65.1 64.9 64.9 63.2", 12.6),
        64: ("36.7 44.0 48.9 56.7 59.2 59.0 OOM OOM", "64.7 64.8 65.5 65.5 65.6 66.1 65.5 64.9", 11.0),
    },
}  # fmt: skip

_COLUMNS_2 = ("ucf101", "hmdb51", "coin", "breakfast", "ssv2", "diving48")
# Model -> the six cells and the printed average.
_TABLE_2 = {
    "Uniformer": "87.4 53.4 44.1 22.9 7.8 8.3 37.3",
    "MViT": "87.2 57.7 48.0 28.0 7.5 9.0 39.5",
    "Hiera-B": "94.3 62.5 61.3 42.1 11.3 9.4 47.0",
    "vanilla": "91.8 60.2 65.8 46.3 9.8 8.1 47.0",
    "TimeSFormer": "91.6 58.7 76.3 39.5 11.4 14.8 48.7",
    "VideoSwin": "93.9 58.9 65.8 52.3 9.7 12.2 48.8",
    "Hiera-L": "96.4 66.0 64.5 50.2 11.3 12.3 50.2",
    "CAST": "95.0 65.0 75.1 49.7 11.2 13.8 51.6",
    "Omnivore": "95.1 62.3 71.2 53.9 10.4 9.7 50.4",
    "EVL": "94.4 61.9 81.0 42.3 11.8 13.5 50.8",
    "UniformerV2": "95.2 65.6 78.7 48.5 10.1 12.9 51.8",
    "FluxViT-S": "95.2 69.9 72.9 55.5 12.1 13.6 53.2",
    "AIM": "94.5 66.0 82.8 54.2 12.5 14.0 54.0",
    "FluxViT-B": "97.0 71.1 77.3 56.4 12.5 13.7 54.6",
    "static_tokens": "94.5 66.1 80.0 60.2 12.4 15.1 54.7",
}
EXTRA_MODALITY = ("EVL", "UniformerV2", "AIM")
"""Table 2's ‡: trained on extra modalities."""
EXTRA_DATA = ("Omnivore", "FluxViT-S", "FluxViT-B")
"""Table 2's †: trained on extra data."""
GAINS_OF_TRANSFORMERS = {
    "timesformer": "on par, sometimes worse",
    "uniformer": "better at the smallest and largest S only",
    "mvit": "+4 to +10 on average",
}
"""What A.2 says of static tokens beside vanilla; Figures A1 to A12 print no numbers."""

_COLUMNS_A1 = (
    "relationship",
    "way_of_speaking",
    "scene",
    "director",
    "genre",
    "writer",
    "year",
    "k700",
)
_TABLE_A1 = {
    "vanilla": "50.0 30.6 44.3 30.0 38.2 25.6 21.7 51.5",
    "static_tokens": "55.2 33.8 49.3 39.0 42.7 31.1 25.3 59.4",
}
_DIFFERENCES_A1 = "5.2 3.2 5.0 9.0 4.5 5.5 3.6 7.9"

# Data set -> method -> cells over SIZES with PATCHES_A2, all at T = 16; "gain" as printed beside static tokens.
_TABLE_A2 = {
    "breakfast": {
        "flexivit": "42.6 46.0 46.3 48.3 49.1 46.3 48.3 44.9",
        "flex_all": "38.7 45.4 47.0 46.9 48.8 50.2 46.0 48.6",
        "static_tokens": "49.4 49.2 48.3 50.3 53.4 52.5 48.6 50.3",
        "gain": "6.8 3.2 1.3 2.0 4.3 2.3 0.3 1.7",
    },
    "coin": {
        "flexivit": "70.7 73.6 74.4 75.2 75.7 75.5 74.7 73.6",
        "flex_all": "69.4 72.3 73.8 74.9 75.5 75.3 75.4 73.9",
        "static_tokens": "74.6 74.9 74.6 75.7 75.9 75.7 75.5 74.6",
        "gain": "3.9 1.3 0.2 0.5 0.2 0.2 0.1 0.7",
    },
    "ucf101": {
        "flexivit": "89.4 91.2 91.3 92.3 92.5 92.4 91.7 91.3",
        "flex_all": "89.0 90.5 91.4 92.3 92.4 92.4 92.0 91.8",
        "static_tokens": "92.0 93.0 93.4 94.3 93.4 94.0 94.0 93.8",
        "gain": "2.6 1.8 2.0 2.0 0.9 1.6 2.0 2.0",
    },
    "hmdb51": {
        "flexivit": "55.3 57.1 59.9 61.7 60.1 61.8 60.7 59.1",
        "flex_all": "54.8 59.0 60.1 61.0 61.6 61.7 61.3 60.7",
        "static_tokens": "60.6 63.3 63.6 64.4 63.0 64.4 64.0 62.1",
        "gain": "5.3 4.3 3.5 2.7 1.4 2.6 2.7 1.6",
    },
}

# Data set -> T -> (VideoMamba trained at this T, StretchySnake) over SIZES_A3.
_TABLE_A3 = {
    "breakfast": {
        8: ("17.7 38.1 35.5 42.0 26.5", "50.0 49.1 53.7 52.8 47.7"),
        32: ("24.2 40.6 42.1 46.9 32.4", "56.0 55.6 56.0 56.0 52.8"),
        64: ("22.0 42.9 46.8 46.8 33.2", "57.9 56.0 60.2 57.9 56.0"),
    },
    "coin": {
        8: ("50.1 60.5 65.2 63.5 58.5", "70.4 71.5 72.8 73.1 71.5"),
        32: ("58.5 65.8 67.9 66.2 61.6", "76.5 79.5 79.0 79.4 77.8"),
        64: ("59.9 66.1 66.4 67.6 64.3", "78.8 80.0 79.5 80.0 78.9"),
    },
    "ucf101": {
        8: ("76.1 88.3 90.1 90.7 86.3", "92.4 92.7 93.4 93.1 92.8"),
        32: ("79.5 90.0 92.5 92.4 87.7", "93.0 93.4 93.9 94.0 94.0"),
        64: ("80.1 90.7 92.5 92.5 89.9", "93.2 93.6 94.3 94.5 94.3"),
    },
    "hmdb51": {
        8: ("41.2 56.5 57.6 56.3 47.6", "62.7 64.2 63.2 62.9 62.2"),
        32: ("47.1 60.8 62.7 62.5 53.4", "64.7 65.7 65.1 64.9 63.2"),
        64: ("47.8 61.6 62.7 62.8 59.7", "64.8 65.5 65.6 66.1 64.9"),
    },
}


def _cells(text: str) -> list[float | None]:
    return [None if word == "OOM" else float(word) for word in text.split()]


def paper_numbers(table: str | None = None) -> list[PaperNumber]:
    """Every cell of a table, or of all five, in the paper's order; averages and gains are not cells."""
    made = {"1": _table_1, "2": _table_2, "A1": _table_a1, "A2": _table_a2, "A3": _table_a3}
    if table is not None and table not in made:
        raise ValueError(f"table ({table!r}) must be one of: {', '.join(made)}")
    return [number for name in ([table] if table else made) for number in made[name]()]


def _table_1() -> list[PaperNumber]:
    return [
        PaperNumber("1", dataset, model, str(size), value, num_frames, size)
        for dataset, lines in _TABLE_1.items()
        for num_frames, (vanilla, static, _) in lines.items()
        for model, text in (("vanilla", vanilla), ("static_tokens", static))
        for size, value in zip(SIZES, _cells(text), strict=True)
    ]


def _table_2() -> list[PaperNumber]:
    return [
        PaperNumber("2", dataset, model, dataset, value)
        for model, text in _TABLE_2.items()
        for dataset, value in zip(_COLUMNS_2, _cells(text)[:-1], strict=True)
    ]


def _table_a1() -> list[PaperNumber]:
    return [
        PaperNumber("A1", column if column == "k700" else f"lvu/{column}", model, column, value)
        for model, text in _TABLE_A1.items()
        for column, value in zip(_COLUMNS_A1, _cells(text), strict=True)
    ]


def _table_a2() -> list[PaperNumber]:
    return [
        PaperNumber("A2", dataset, model, f"{size}/{patch}", value, 16, size, patch)
        for dataset, lines in _TABLE_A2.items()
        for model in ("flexivit", "flex_all", "static_tokens")
        for size, patch, value in zip(SIZES, PATCHES_A2, _cells(lines[model]), strict=True)
    ]


def _table_a3() -> list[PaperNumber]:
    return [
        PaperNumber("A3", dataset, model, str(size), value, num_frames, size)
        for dataset, lines in _TABLE_A3.items()
        for num_frames, pair in lines.items()
        for model, text in zip(("vanilla", "static_tokens"), pair, strict=True)
        for size, value in zip(SIZES_A3, _cells(text), strict=True)
    ]
