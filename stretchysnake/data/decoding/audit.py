"""A verdict for every video before it is trained or measured on: `stretchysnake data check`.

Each file is decoded from its first frame to its last, in processes of its own (decoder_pool.py). Verdicts are written
down as they fall; a check that was interrupted, or is repeated, decodes only the files that are new or have changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from stretchysnake.data.copies import Double, doubles_of, same_content
from stretchysnake.data.decode_error import TRANSIENT_KINDS, DecodeError
from stretchysnake.data.decoding.verdicts import Audit, Verdict, journal_of, known_verdicts
from stretchysnake.data.decoding.video import VideoInfo, probe, verify
from stretchysnake.data.folders import PassedOver
from stretchysnake.data.lists import LIST_EXTENSIONS
from stretchysnake.data.processes.decoder_pool import MEMORY_GIB, TIMEOUT_SECONDS, map_decoding
from stretchysnake.data.records import (
    VideoRecord,
    find_videos,
    is_utf8,
    passed_over,
    place_of,
    read_records,
    write_records,
)
from stretchysnake.data.records_key import file_stamp
from stretchysnake.whole_file import write_whole


@dataclass(frozen=True, kw_only=True)
class CheckRun:
    """A verdict for every video of lists, folders or files."""

    report: str | None = "data-check.json"
    """JSON report; a repeated check reads the verdicts of unchanged files from it. Null writes none."""
    clean: str | None = None
    """CSV list of the good videos to write; needs a list with labels or class folders."""
    quick: bool = False
    """Read the packets and the first frame only: finds missing, cut and foreign files, not rot inside."""
    num_workers: int = 2
    """Processes that decode."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """Time that each second of a video may take to decode; a file that takes longer is bad."""
    memory_gib: float = MEMORY_GIB
    """Memory for one file."""


def check(
    sources: Sequence[str | os.PathLike],
    run: CheckRun | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> Audit:
    """Decode every video of the sources (lists, folders, files) and return the verdicts; write what `run` asks for.

    ValueError for a source that does not exist, a list that cannot be read, or `clean` without labels.
    """
    run = run or CheckRun(report=None)
    listed = _listed(sources)
    paths, records = listed.paths, listed.records
    _check_clean(run.clean, records)
    report = Path(run.report) if run.report else None
    earlier = known_verdicts(report) if report else {}
    by_path: dict[str, Verdict] = {}
    for path in paths:
        verdict = earlier.get(path)
        if verdict is not None and _unchanged(verdict, run.quick):
            by_path[path] = verdict
    reused, started = len(by_path), time.perf_counter()
    todo = [path for path in paths if path not in by_path]
    journal = journal_of(report)
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
    with open(journal, "a", encoding="utf-8") if journal else open(os.devnull, "w") as file:
        for verdict in _verdicts(todo, run):
            by_path[verdict.path] = verdict
            file.write(json.dumps(asdict(verdict)) + "\n")
            file.flush()
            if progress:
                bad = sum(v.kind != "ok" for v in by_path.values())
                done, seconds = len(by_path) - reused, time.perf_counter() - started
                left = seconds / done * (len(todo) - done)
                progress(f"checked {len(by_path)} of {len(paths)} videos, {bad} bad, "
                         f"{done / max(1e-6, seconds):.0f}/s, {left / 60:.1f} min left")  # fmt: skip
    verdicts = [by_path[path] for path in paths]
    audit = Audit(
        verdicts=verdicts,
        records=records,
        bad_records=list(_empty_windows(records, by_path)),
        passed_over=listed.passed,
        copies=_copies(verdicts),
        doubles=listed.doubles,
        shared=listed.shared,
        reused=reused,
        seconds=time.perf_counter() - started,
    )
    if report:
        write_whole(report, json.dumps(audit.as_json(), indent=1))
        journal.unlink(missing_ok=True)
    if run.clean:
        write_records(run.clean, [_absolute(record) for record in audit.good_records])
    return audit


def _absolute(record: VideoRecord) -> VideoRecord:
    """The record as a list anywhere else can hold it."""
    return replace(record, path=os.path.abspath(record.path))


def _check_clean(clean: str | None, records: Sequence[VideoRecord]) -> None:
    """ValueError, before hours of decoding, for a clean list that could not be written."""
    if clean and not records:
        raise ValueError(
            f"clean ({clean}) needs labels: give a list, or a folder with one sub-folder per class."
        )
    if clean and not clean.lower().endswith(".jsonl"):
        odd = [record.path for record in records if not is_utf8(os.path.abspath(record.path))]
        if odd:
            raise ValueError(
                f"clean ({clean}) cannot hold {odd[0]}, whose name is not UTF-8; give a name that ends in .jsonl"
            )


@dataclass(frozen=True, kw_only=True)
class _Listed:
    """What lists, folders and videos name: unique paths in order, labelled records, what is passed over or doubled."""

    paths: list[str]
    records: list[VideoRecord]
    passed: PassedOver
    doubles: list[Double]
    shared: list[str]


def _listed(sources) -> _Listed:
    sources = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    by_source: dict[Path, list[str]] = {}
    labelled: dict[Path, list[VideoRecord]] = {}
    for source in map(place_of, sources):
        if source.is_dir():
            by_source[source] = find_videos(source)
            with suppress(ValueError):  # without class folders there is all but the clean list
                labelled[source] = read_records(source)
        elif source.suffix.lower() in LIST_EXTENSIONS or not source.exists():
            labelled[source] = read_records(source)  # raises for what does not exist
            by_source[source] = [record.path for record in labelled[source]]
        else:
            by_source[source] = [str(source)]
    paths = list(dict.fromkeys(path for listed in by_source.values() for path in listed))
    content = same_content(paths)
    doubles = [
        double
        for source, records in labelled.items()
        for double in doubles_of(source, records, content)
    ]
    owners: dict[str, dict[str, None]] = {}
    for source, listed in by_source.items():
        for path in listed:
            owners.setdefault(content[path], {})[str(source)] = None
    return _Listed(
        paths=paths,
        records=[record for records in labelled.values() for record in records],
        passed=passed_over(sources),
        doubles=doubles,
        shared=[path for path, names in owners.items() if len(names) > 1],
    )


def _verdicts(paths: Sequence[str], run: CheckRun) -> Iterator[Verdict]:
    answers = map_decoding(
        partial(_examine, quick=run.quick),
        ((path, path) for path in paths),
        num_workers=run.num_workers,
        timeout_seconds=run.timeout_seconds,
        memory_gib=run.memory_gib,
    )
    for path, answer in zip(paths, answers, strict=True):
        size, modified = file_stamp(path) or (0, 0)
        stamp = {"num_bytes": size, "modified_ns": modified, "quick": run.quick}
        if isinstance(answer, DecodeError):
            told = {"kind": answer.kind, "reason": answer.reason, "may_pass": answer.may_pass}
            yield Verdict(path=path, **told, **stamp)
        else:
            info, digest = answer
            yield Verdict(path=path, kind="ok", digest=digest, **asdict(info), **stamp)


def _examine(path: str, *, quick: bool) -> tuple[VideoInfo, str]:
    info = probe(path) if quick else verify(path)
    digest = hashlib.sha1()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return info, digest.hexdigest()


def _unchanged(verdict: Verdict, quick: bool) -> bool:
    """Whether an earlier verdict still holds; what may have passed, as a file that was missing, is tried again."""
    passing = verdict.may_pass or verdict.kind in TRANSIENT_KINDS
    if passing or (verdict.quick and not quick):
        return False
    return (verdict.num_bytes, verdict.modified_ns) == (file_stamp(verdict.path) or (0, 0))


def _empty_windows(records, verdicts) -> Iterator[tuple[VideoRecord, str]]:
    for record in records:
        duration = verdicts[record.path].duration_seconds
        if verdicts[record.path].kind != "ok" or (record.start is None and record.end is None):
            continue
        start = record.start or 0.0
        if start >= duration or (record.end is not None and record.end <= start):
            yield (
                record,
                f"no frame between {record.start} s and {record.end} s; it lasts {duration:.2f} s",
            )


def _copies(verdicts: Sequence[Verdict]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.digest:
            groups.setdefault(verdict.digest, []).append(verdict.path)
    return [group for group in groups.values() if len(group) > 1]
