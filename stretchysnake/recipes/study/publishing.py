"""A finished study made small enough to be published, and told anew from what was published.

    stretchysnake study publish runs/study docs/results/motion-digits
    stretchysnake study report docs/results/motion-digits/rows.jsonl.gz --out redrawn

Published are the page with the pictures and clips that it shows, its context, the summary, and the rows, compressed
where they are large. Tables and figures as files, vector copies and arrays of pictures follow from these or are made
again by `stretchysnake visualize`, and stay out.
"""

import gzip
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from stretchysnake.recipes.motion_digits import PREFIX, suite_info
from stretchysnake.recipes.study.pages import write_pages
from stretchysnake.recipes.study.stored_rows import NAME, row_files
from stretchysnake.whole_file import write_whole

CONTEXT = "context.json"
COMPRESSED_FROM = 2_000_000
"""Bytes of rows beyond which they are published compressed: to about a tenth."""
MAX_CURVE = 150
"""Points of a loss curve: as many as its picture tells apart."""


def redraw(rows_path: str | Path, out: str | Path) -> list[str]:
    """Write tables/, report.html, overview.png and README.md from rows, compressed or not; returns what holds.

    context.json beside the rows says what no row can (suites, trainings, pictures); without it the page tells of the
    suites alone. Nothing is measured. ValueError where there are no rows.
    """
    from stretchysnake.results.rows import read_rows

    paths = _rows_in(Path(rows_path))
    rows = [row for path in paths for row in read_rows(path)]
    if not rows:
        raise ValueError(
            f"rows ({rows_path}) hold no measured number; run stretchysnake study first"
        )
    beside = paths[0].parent / CONTEXT
    context = _read(beside) if beside.is_file() else _context_of(rows)
    Path(out).mkdir(parents=True, exist_ok=True)
    return write_pages(Path(out), rows, context, summary="README.md", rows_name=paths[-1].name)


def publish(study: str | Path, into: str | Path) -> list[str]:
    """Put a finished (or published) study into a new or empty folder, slim; returns what holds, in lines.

    ValueError where the folder holds anything, the study is not finished, or a file is gone that its page shows.
    """
    from stretchysnake.report.pages.context import write_context
    from stretchysnake.results.rows import read_rows

    study, into = Path(study), Path(into)
    if into.exists() and any(into.iterdir()):
        raise ValueError(f"folder ({into}) must be new or empty: nothing is written over")
    paths = _rows_in(study)
    if not (study / CONTEXT).is_file():
        raise ValueError(f"study ({study}) must be finished: {CONTEXT} is missing")
    rows, context = [row for path in paths for row in read_rows(path)], _read(study / CONTEXT)
    _check_files(context, study)
    kept = _copied(context, into)
    content = b"".join(
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for path in paths
    )
    name = NAME if len(content) <= COMPRESSED_FROM else f"{NAME}.gz"
    # no time inside: equal rows are equal bytes
    write_whole(into / name, content if name == NAME else gzip.compress(content, mtime=0))
    write_context(into / CONTEXT, kept, compact=True)
    shown = _under(kept, into)
    return write_pages(into, rows, shown, summary="README.md", tables=False, rows_name=name)


def _rows_in(path: Path) -> list[Path]:
    """The rows of a folder, or the file itself."""
    if not path.is_dir():
        return [path]
    found = row_files(path)
    if not found:
        raise ValueError(f"study ({path}) must hold {NAME} or {NAME}.gz")
    return found


def _read(path: Path):
    """A context whose files are found from here: relative ones lie beside it, or are those that a study with a
    relative `out` wrote from here."""
    from stretchysnake.report.pages.context import read_context

    return _under(read_context(path), path.parent)


def _under(context, folder: Path):
    def place(path: str | Path, _: str) -> str | Path:
        beside = folder / path
        return beside if beside.is_file() else path

    return _with_files(context, place)


def _with_files(context, place: Callable[[str | Path, str], str | Path]):
    """The context, each of its files (path, what the files of its kind are called) where `place` says."""
    suites = [
        replace(
            suite,
            contact_sheet_png=suite.contact_sheet_png and place(suite.contact_sheet_png, "samples"),
            sample_clips=[place(clip, f"samples/{suite.name}") for clip in suite.sample_clips],
        )
        for suite in context.suites
    ]
    pictures = [replace(one, path=place(one.path, "pictures")) for one in context.pictures]
    return replace(context, suites=suites, pictures=pictures)


def _check_files(context, study: Path) -> None:
    """ValueError for a file that the page shows and that is not there, before anything is copied."""
    gone = []

    def look(path: str | Path, _: str) -> str | Path:
        if not Path(path).is_file():
            gone.append(path)
        return path

    _with_files(context, look)
    if gone:
        raise ValueError(
            f"study ({study}) must hold every file that its page shows, and {len(gone)} are missing, first {gone[0]}; "
            "the command of the study writes them again, and what is measured is kept"
        )


def _copied(context, into: Path):
    """The files that the page shows, copied, and the context with their places from the folder on."""

    def copy(path: str | Path, folder: str) -> str:
        (into / folder).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, into / folder / Path(path).name)
        return f"{folder}/{Path(path).name}"

    curves = [
        replace(
            one,
            loss_curve=[
                (step, round(loss, 4))
                for step, loss in one.loss_curve[:: -(-len(one.loss_curve) // MAX_CURVE) or 1]
            ],
        )
        for one in context.training
    ]
    return replace(_with_files(context, copy), training=curves)


def _context_of(rows: Sequence):
    """What rows alone say, and the built-in benchmark of its own suites."""
    from stretchysnake.data.motion_digits import SUITES
    from stretchysnake.report.pages.context import ReportContext

    there = list(dict.fromkeys(row.dataset.removeprefix(PREFIX) for row in rows))
    return ReportContext(
        title="The paper's experiments on MotionDigits",
        suites=[suite_info(name) for name in there if name in SUITES],
        seeds=sorted({row.seed for row in rows}),
        settings={"suites": there},
        notes=["Told from the rows alone: what was trained, and how, is not with them."],
    )
