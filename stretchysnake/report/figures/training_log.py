"""log.html of a training: its loss and learning rate as lines, from loss.jsonl and log.jsonl; loads nothing else.

Drawn by hand as SVG, so that every training gets it, also where no plotting library is installed.
"""

import json
from collections import Counter
from html import escape
from itertools import pairwise
from pathlib import Path

from stretchysnake.whole_file import write_whole

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 760, 260, 64, 32, 12
MOST_POINTS = 400

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:820px;margin:2em auto;padding:0 1em;color:#1b1b1b;background:#fff}
svg{width:100%;height:auto}text{font-size:12px;fill:currentColor}
.grid{stroke:currentColor;opacity:.15}.band{fill:#3b6fb6;opacity:.18}.line{stroke:#3b6fb6;stroke-width:1.6;fill:none}
.skipped{stroke:#c0392b}.resumed{stroke:currentColor;stroke-dasharray:3 3;opacity:.5}
td{padding:0 1em 0 0;vertical-align:top}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#16181b}.line{stroke:#7fb0f0}.band{fill:#7fb0f0}}
"""


def write_training_log(folder: Path) -> Path:
    """Write log.html of the finished training in `folder`; ValueError when a file of it cannot be read."""
    try:
        finished = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        losses = _lines(folder / "loss.jsonl")
        events = _lines(folder / "log.jsonl") if (folder / "log.jsonl").is_file() else []
        run, result = finished["run"], finished["result"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"folder ({folder}) holds no finished training: {error}") from None
    counts = Counter(event["event"] for event in events)
    held_out = {
        e["step"]: e["top1"] for e in events if e["event"] == "held_out"
    }  # a step may be done twice
    rates = [(event["step"], event["lr"]) for event in events if event["event"] == "step"]
    marks = [
        (event["step"], event["event"])
        for event in events
        if event["event"] in ("skipped", "resumed")
    ]
    facts = {
        "run": f"{run['variant']} on {run['data']}, seed {run['seed']}, {run['precision']}",
        "steps done": f"{len(losses)}, last loss {losses[-1][1]:.4g}" if losses else "0",
        "clips, tokens": f"{result['clips']:,}, {result['tokens']:,}",
        "time": f"{result['seconds']:,.0f} s, {result['clips'] / max(1e-9, result['seconds']):.1f} clips/s",
        "checkpoints, resumes": f"{counts['checkpoint']}, {counts['resumed']}",
        "steps skipped": f"{counts['skipped']} not finite, {counts['overflow']} overflows, "
        f"{counts['rollback']} returns",
        "environment": ", ".join(f"{k} {v}" for k, v in finished.get("environment", {}).items()),
    }
    rows = "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in facts.items())
    body = f"<h1>{escape(folder.name or 'training')}</h1><table>{rows}</table>"
    body += "<h2>Loss</h2>" + _chart(losses, marks, name="loss")
    if held_out:
        told = finished.get("held_out", {})
        name = f"Held out: top-1 ({told.get('weights', 'weights')}, native scale)"
        body += f"<h2>{escape(name)}</h2>" + _chart(
            sorted(held_out.items()), [], name="held-out top-1"
        )
    if rates:
        body += "<h2>Learning rate</h2>" + _chart(rates, [], name="learning rate")
    body += (
        "<p>Line: mean of neighbouring steps; band: their smallest and largest. Red: steps skipped because a number "
        "was not finite. Dashed: where the run went on after a stop.</p>"
    )
    title = escape(folder.name or "training")
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>{body}'
    write_whole(folder / "log.html", page + "</html>\n")
    return folder / "log.html"


def _lines(path: Path) -> list:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def binned(points: list) -> list[tuple[float, float, float, float]]:
    """(step, mean, smallest, largest) of neighbouring points: a fifth as many, within 20 and 400."""
    count = min(len(points), max(20, min(MOST_POINTS, len(points) // 5)))
    cuts = [len(points) * i // count for i in range(count + 1)] if count else [0]
    bins = []
    for start, end in pairwise(cuts):
        values = [value for _, value in points[start:end]]
        middle = points[(start + end - 1) // 2][0]
        bins.append((middle, sum(values) / len(values), min(values), max(values)))
    return bins


def _chart(points: list, marks: list, *, name: str) -> str:
    if not points:
        return "<p>no step was done</p>"
    bins = binned(points)
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)
    low, high = min(b[2] for b in bins), max(b[3] for b in bins)
    if high <= low:
        low, high = low - abs(low) / 10 - 1e-9, high + abs(high) / 10 + 1e-9

    def x(step: float) -> str:
        return f"{LEFT + (WIDTH - LEFT - 8) * (step - first) / (last - first):.1f}"

    def y(value: float) -> str:
        return f"{TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low):.1f}"

    parts = []
    for i in range(5):
        value, step = low + (high - low) * i / 4, first + (last - first) * i / 4
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y(value)}" y2="{y(value)}"/>'
        )
        parts.append(
            f'<text x="{LEFT - 6}" y="{float(y(value)) + 4}" text-anchor="end">{value:.3g}</text>'
        )
        anchor = ("start", "middle", "middle", "middle", "end")[i]
        parts.append(
            f'<text x="{x(step)}" y="{HEIGHT - 10}" text-anchor="{anchor}">{step:.0f}</text>'
        )
    for step, kind in marks:
        place = x(min(max(step, first), last))
        parts.append(
            f'<line class="{kind}" x1="{place}" x2="{place}" y1="{TOP}" y2="{HEIGHT - BOTTOM}">'
            f"<title>{kind} at step {step}</title></line>"
        )
    band = [f"{x(b[0])},{y(b[3])}" for b in bins] + [f"{x(b[0])},{y(b[2])}" for b in reversed(bins)]
    line = " ".join(f"{x(b[0])},{y(b[1])}" for b in bins)
    parts.append(f'<polygon class="band" points="{" ".join(band)}"/>')
    parts.append(f'<polyline class="line" points="{line}"/>')
    label = f"{name} over steps {first} to {last}, from {points[0][1]:.4g} to {points[-1][1]:.4g}"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
