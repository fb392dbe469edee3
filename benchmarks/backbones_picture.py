"""The picture of benchmarks/backbones.py: how the cost of each backbone grows with the tokens of a clip.

python benchmarks/backbones_picture.py benchmarks/results/backbones.json docs/backbones.svg
"""

import json
import statistics
import sys
from pathlib import Path

from stretchysnake.report.figures.picture import CLASS_COLOURS, MARKERS, Picture, log_ticks

HEIGHTS = (1, 2, 5, 10, 20, 50)


def grown(cells: list[dict], model: str, axis: str) -> list[dict]:
    """The model's cells whose T (or S) grows from its first one, whose S (or T) stays."""
    own = [cell for cell in cells if cell["model"] == model]
    first = min(own, key=lambda cell: (cell["num_frames"], cell["size"]))
    other = "size" if axis == "num_frames" else "num_frames"
    return sorted((c for c in own if c[other] == first[other]), key=lambda c: c[axis])


def picture(found: dict) -> Picture:
    """Cost over tokens relative to the smallest clip: lines as counted, marks as measured in processor time."""
    cells = found["cells"]
    names = [
        name
        for name in dict.fromkeys(cell["model"] for cell in cells)
        if len(grown(cells, name, "num_frames")) > 2 or len(grown(cells, name, "size")) > 1
    ]
    colours = dict(zip(names, CLASS_COLOURS, strict=False))
    markers = {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(names)}

    def draw(plt):
        figure, axes = plt.subplots(1, 2, figsize=(9.6, 5.2), layout="constrained", sharey=True)
        ink = plt.rcParams["text.color"]
        for axis, by, letter in zip(axes, ("num_frames", "size"), "TS", strict=True):
            for name in names:
                row = grown(cells, name, by)
                tokens = [cell["tokens_of_16"] for cell in row]
                counted = [cell["gmacs"] / row[0]["gmacs"] for cell in row]
                axis.plot(tokens, counted, color=colours[name], linewidth=1.8)
                if not row[0]["processor"]:
                    continue
                least = statistics.median(row[0]["processor"])
                for cell in filter(lambda cell: cell["processor"], row):
                    high = statistics.median(cell["processor"]) / least
                    axis.plot(
                        cell["tokens_of_16"], high, color=colours[name], marker=markers[name], ms=7
                    )
            ends = [tokens[0], tokens[-1]]
            for power, dash in ((1, ":"), (2, "--")):
                far = (ends[1] / ends[0]) ** power
                axis.plot(ends, [1, far], color=ink, linestyle=dash, linewidth=1)
            axis.set_xscale("log")
            axis.set_yscale("log")
            log_ticks(axis)
            axis.set_yticks(HEIGHTS, labels=map(str, HEIGHTS))
            axis.minorticks_off()
            axis.set_title(f"{letter} grows")
            axis.set_xlabel("tokens of 16 × 16 pixels in the clip")
            axis.grid(color=ink, alpha=0.12)
        axes[0].set_ylabel("cost / cost of the smallest clip")
        handles = [
            plt.Line2D([], [], color=colours[name], marker=markers[name], label=name)
            for name in names
        ]
        handles += [
            plt.Line2D([], [], color=ink, linestyle=dash, linewidth=1, label=label)
            for dash, label in ((":", "linear"), ("--", "quadratic"))
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        return figure

    return Picture(
        name="backbones",
        alt=f"Cost over the tokens of a clip for {', '.join(names)}; lines as counted, marks as measured.",
        draw=draw,
    )


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    target.write_text(picture(json.loads(source.read_text())).svg())


if __name__ == "__main__":
    main()
