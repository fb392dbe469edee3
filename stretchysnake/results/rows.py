"""Rows, one for each measured number: append, read, select (JSON lines on disk)."""

from __future__ import annotations

import difflib
import gzip
import json
import math
import os
import platform
import re
import subprocess
import warnings
import zlib
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from types import NoneType

GZIP = b"\x1f\x8b"
STATUSES = ("ok", "oom", "empty", "refused")

_TYPES = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float | None": (float, int, NoneType),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured number: a model, at one scale, on one data set, by one protocol."""

    run_id: str
    protocol: str
    """`retrieval`, `probe`, `finetune` or `probe-sgd`, and what makes its numbers not comparable: `retrieval-l2`."""
    dataset: str
    """Name of the data set and suite, e.g. `motion-digits/short`."""
    model: str
    """The variant it was trained with, e.g. `static_tokens`, or the name given to `evaluate --model`."""
    seed: int
    num_frames: int
    size: int
    """Pixels asked for; the table's column."""
    patch_size: int
    metric: str
    value: float | None
    """A fraction in [0, 1]; None exactly when status is not `ok`."""
    status: str = "ok"
    """`ok`, `oom` (the cell did not fit in memory), `empty` (no query could be read) or `refused` (the model cannot
    take this scale; `note` says why)."""
    num_queries: int
    """Queries answered, out of num_expected asked for."""
    num_expected: int
    num_gallery: int
    gflops: float | None
    """Forward GFLOPs of one clip, selective scan included."""
    milliseconds: float | None
    """Forward time of one clip."""
    trained: bool
    """Whether this model saw this scale in training."""
    native: bool
    """Whether this is vanilla's own training cell."""
    low: float | None = None
    high: float | None = None
    """95 % interval of value over queries: Wilson's for shares, bootstrap for others (comparison.py)."""
    correct: str = ""
    """Which queries were right, in their order, packed (comparison.pack_correct); "" for no shares."""
    queries: str = ""
    """Hash of the queries answered, in their order: rows with the same one can be paired."""
    weights: str = ""
    """Hash of the weights measured (with the head, where it was tested); "" in rows of earlier versions: unknown."""
    architecture: str = ""
    """Of the model: `videomamba`, `hiera`, ...; "" in rows of earlier versions, which are of videomamba."""
    peak_mib: float | None = None
    """Most MiB that the tensors of one clip's forward pass hold at once, beside the weights."""
    picture: str = ""
    """What was seen of each frame: `whole` squashed to a square, or `centre`; "" in rows of earlier versions."""
    sampling: str = ""
    """Which frames: `uniform`, `videomamba`, `strided-4`; "" in rows of earlier versions, which are uniform."""
    precision: str = "fp32"
    """In which the model computed: `fp32`, which rows of earlier versions are of, `bf16` or `int8`."""
    fit: str = ""
    """How it was fitted into the clip: `square` (squashed), `keep` (in its own shape) or `crop` (the middle square); ""
    in rows of earlier versions: `square`, or `crop` where `picture` is `centre`."""
    note: str = ""
    commit: str = ""
    device: str = ""
    threads: int = 0
    """Threads of the process that measured it, on which last bits may depend; 0 in rows of earlier versions."""
    created: str = ""
    """ISO 8601 time."""
    train_steps: int = 0
    """What pre-training gave the model: steps, clips, patch tokens of the scales drawn; 0 where a recipe does not say,
    as in rows of earlier versions."""
    train_clips: int = 0
    train_tokens: int = 0
    train_data: str = ""
    """Hash of the list of videos it was trained on, their folder apart; "" likewise."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            is_bool = isinstance(value, bool)
            if not isinstance(value, _TYPES[field.type]) or (is_bool and field.type != "bool"):
                raise TypeError(f"{field.name} ({value!r}) must be {field.type}.")
        if self.status not in STATUSES:
            raise ValueError(f"status ({self.status!r}) must be one of {', '.join(STATUSES)}.")
        if (self.status == "ok") != (self.value is not None):
            raise ValueError(
                f"value ({self.value!r}) must be a number when status is 'ok' and None otherwise; "
                f"status is {self.status!r}."
            )
        if self.value is not None and not 0 <= self.value <= 1:
            raise ValueError(f"value ({self.value!r}) must be a fraction in [0, 1], not percent.")
        for name in ("gflops", "milliseconds", "peak_mib"):
            number = getattr(self, name)
            if number is not None and not (math.isfinite(number) and number >= 0):
                raise ValueError(f"{name} ({number!r}) must be finite and not negative, or None.")


_NAMES = tuple(field.name for field in fields(Row))


def append_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Appends rows as JSON lines in one synced write: a kill leaves at most one torn last line.

    A torn last line left by an earlier kill is cut off first, with a warning: the next row would
    otherwise be glued to it. Several processes may append to one file: each waits for the one before.
    """
    lines = "".join(json.dumps(asdict(row), allow_nan=False) + "\n" for row in rows)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        _wait_for_others(file)
        _close_last_line(file, path)
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())


def _wait_for_others(file) -> None:
    """Lock an open file until it is closed; where the system or the disk has no such lock, one process writes alone."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
    except (ImportError, OSError):
        return


def _close_last_line(file, path: Path) -> None:
    file.seek(0)
    content = file.read()
    if content[:2] == GZIP:
        raise ValueError(f"rows ({path}) are compressed, and none is added; gunzip them first")
    start = content.rfind(b"\n") + 1
    if start == len(content):
        return
    try:
        _parse(content[start:].decode())
    except (ValueError, TypeError):
        warnings.warn(f"{path}: cut off the torn last line of an interrupted run.", stacklevel=3)
        file.truncate(start)
    else:
        file.write(b"\n")


def read_rows(path: str | Path) -> list[Row]:
    """Reads every row, of a gzip file too; a torn last line is skipped with a warning, other bad lines are errors."""
    try:
        content = Path(path).read_bytes()
        content = gzip.decompress(content) if content[:2] == GZIP else content
        text = content.decode(errors="replace")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"rows ({path}) are damaged, not gzip to the end: {error}") from None
    except FileNotFoundError:
        raise ValueError(
            f"rows ({path}) must be a file; `stretchysnake evaluate`, `quickstart` and `study` write one"
        ) from None
    lines = text.split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_parse(line))
        except json.JSONDecodeError as error:
            if number == len(lines):  # no newline after it: the write was cut short
                warnings.warn(f"{path}, line {number}: torn last line skipped.", stacklevel=2)
                continue
            what = f"not JSON ({error.msg}); found {line[:60]!r}."
            raise ValueError(f"{path}, line {number}: {what}") from None
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    return rows


def _parse(line: str) -> Row:
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError(f"a row must be a JSON object; found {line[:60]!r}.")
    if unknown := [name for name in values if name not in _NAMES]:
        raise ValueError(f"unknown fields {', '.join(unknown)}; a row has {', '.join(_NAMES)}.")
    needed = [field.name for field in fields(Row) if field.name not in values]
    if missing := [name for name in needed if not hasattr(Row, name)]:  # no default
        raise ValueError(f"missing fields {', '.join(missing)}.")
    return Row(**values)


def select(rows: Iterable[Row], **wanted: object) -> list[Row]:
    """Rows whose fields equal the given values; a list, tuple or set means any of its values."""
    for name in wanted:
        if name not in _NAMES:
            near = difflib.get_close_matches(name, _NAMES)
            hint = f"did you mean {' or '.join(near)}?" if near else f"fields: {', '.join(_NAMES)}."
            raise ValueError(f"field ({name!r}) is not a field of a row; {hint}")

    allowed = {
        name: value if isinstance(value, Collection) and not isinstance(value, str) else (value,)
        for name, value in wanted.items()
    }
    return [row for row in rows if all(getattr(row, n) in values for n, values in allowed.items())]


def latest(rows: Iterable[Row]) -> list[Row]:
    """The last row of each cell measured more than once (same model, seed, scale and metric).

    ValueError where one name and seed stand for several weights or precisions: cells of two models would override
    one another, or be averaged.
    """
    rows = list(rows)
    refuse_two_precisions(rows)
    refuse_two_weights(rows)
    newest: dict[tuple, Row] = {}
    for row in rows:
        key = (row.protocol, row.dataset, row.metric, row.model, row.seed, row.num_frames, row.size)
        newest.pop(key, None)
        newest[key] = row
    return list(newest.values())


def refuse_two_weights(rows: Iterable[Row]) -> None:
    """ValueError where rows of one protocol, data set, model and seed are of several weights.

    A row of an earlier version does not say its weights; they are known where another row of its run_id does. Beside
    known ones it counts as another: its cells would fill the gaps of a model that it may not be of. Rows that all do
    not say are taken as one model, as they always were.
    """
    rows = list(rows)
    of_run = {row.run_id: row.weights for row in rows if row.weights}
    by_place: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        place = (row.protocol, row.dataset, row.model, row.seed)
        weights = row.weights or of_run.get(row.run_id, "")
        held = by_place.setdefault(place, {})
        held.setdefault(weights, row)
        if len(held) > 1:
            first, second = (
                f"{name or 'unknown ones'} ({', '.join(filter(None, [one.architecture, f'run {one.run_id}']))})"
                for name, one in list(held.items())[:2]
            )
            if "" in held:
                second += ", some of an earlier version that did not note them; measure these again"
            raise ValueError(
                f"model {row.model}, seed {row.seed}, stands for two weights in the rows of {row.protocol} on "
                f"{row.dataset}: {first} and {second}; name one of them when it is measured (stretchysnake evaluate "
                "--model NAME), or leave its rows out"
            )


def refuse_two_precisions(rows: Iterable[Row]) -> None:
    """ValueError where rows of one protocol, data set, model and seed were computed in several precisions."""
    held: dict[tuple, str] = {}
    for row in rows:
        place = (row.protocol, row.dataset, row.model, row.seed)
        first = held.setdefault(place, row.precision)
        if first != row.precision:
            raise ValueError(
                f"model {row.model}, seed {row.seed}, was measured in {first} and in {row.precision} in the rows of "
                f"{row.protocol} on {row.dataset}; name one of them when it is measured (stretchysnake evaluate "
                "--model NAME), or leave its rows out"
            )


def native_cells(rows: Iterable[Row]) -> set[tuple[int, int]]:
    """The (num_frames, size) that vanilla was trained at."""
    return {(row.num_frames, row.size) for row in rows if row.native}


def environment() -> dict[str, str]:
    """What the numbers were measured with: commit, versions, processor. Imports none of them."""
    versions = {"commit": _commit(), "python": platform.python_version()}
    for package in ("stretchysnake", "torch", "numpy", "av"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    versions["cpu"] = _cpu()
    usable = getattr(os, "sched_getaffinity", None)
    versions["cores"] = str(len(usable(0)) if usable else os.cpu_count())
    versions["platform"] = platform.platform()
    return versions


def _commit() -> str:
    here = Path(__file__).resolve()

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(here.parent), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy may lie inside someone else's repository, whose commit is not ours.
    if git("ls-files", "--error-unmatch", here.name) is None:
        return ""
    commit = git("rev-parse", "--short=12", "HEAD") or ""
    return f"{commit}+changes" if commit and git("status", "--porcelain", "-uno") else commit


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*: (.+)", path.read_text() if path.exists() else "", re.M)
    return match[1] if match else platform.processor() or platform.machine()
