"""What a check of videos found: one `Verdict` per file, all of them as an `Audit`, in words and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from stretchysnake.data.copies import Double
from stretchysnake.data.decode_error import ERROR_KINDS
from stretchysnake.data.folders import PassedOver
from stretchysnake.data.records import VideoRecord
from stretchysnake.shown import shown


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a check says about one file: `kind` is "ok" or one of decode_error.ERROR_KINDS."""

    path: str
    kind: str
    reason: str = ""
    num_frames: int = 0
    duration_seconds: float = 0.0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    codec: str = ""
    note: str = ""
    """What is odd about a good file: frames left out because a recording was stopped, clocks that go back, which of
    several tracks is read, a picture that changes its size."""
    digest: str = ""
    """SHA-1 of the file's bytes; equal ones are copies."""
    may_pass: bool = False
    """Whether the file is bad for now: missing, too slow, its storage erred, or it needed more memory than allowed."""
    num_bytes: int = 0
    modified_ns: int = 0
    quick: bool = False


@dataclass(frozen=True, kw_only=True)
class Audit:
    """All verdicts, in the order of the list, and what else was noticed."""

    verdicts: list[Verdict]
    records: list[VideoRecord]
    """Labelled records, where the source has labels."""
    bad_records: list[tuple[VideoRecord, str]] = field(default_factory=list)
    """Records of good files whose start and end hold no frame, with the reason."""
    passed_over: PassedOver = field(default_factory=PassedOver)
    """What lies in the folders, or stands in the lists, and was not looked at."""
    copies: list[list[str]] = field(default_factory=list)
    """Groups of files with the same bytes."""
    doubles: list[Double] = field(default_factory=list)
    """What one source names twice; those with different labels are errors."""
    shared: list[str] = field(default_factory=list)
    """Files that two of the sources hold, by path or bytes."""
    reused: int = 0
    """Verdicts taken from an earlier check of the same, unchanged files."""
    seconds: float = 0.0

    @property
    def bad(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.kind != "ok"]

    @property
    def other_files(self) -> dict[str, int]:
        """Files in the folders that are no videos: ending -> how many."""
        return dict(sorted(self.passed_over.endings.items()))

    @property
    def contradictions(self) -> list[Double]:
        """Files that one source names with different labels."""
        return [double for double in self.doubles if double.contradicts]

    @property
    def sound(self) -> bool:
        """Whether every file is good and every label believable."""
        return not (self.bad or self.bad_records or self.contradictions)

    @property
    def good_records(self) -> list[VideoRecord]:
        """The labelled records of good files whose labels do not contradict one another."""
        unusable = {verdict.path for verdict in self.bad}
        unusable |= {path for double in self.contradictions for path in double.paths}
        wrong = {id(record) for record, _ in self.bad_records}
        return [r for r in self.records if r.path not in unusable and id(r) not in wrong]

    def counts(self) -> dict[str, int]:
        """Files per kind, "ok" first."""
        per_kind = Counter(verdict.kind for verdict in self.verdicts)
        return {
            kind: per_kind[kind] for kind in ("ok", *ERROR_KINDS) if kind == "ok" or per_kind[kind]
        }

    def as_json(self) -> dict:
        labels = Counter(record.class_name or str(record.label) for record in self.good_records)
        return {
            "num_files": len(self.verdicts),
            "counts": self.counts(),
            "num_reused": self.reused,
            "seconds": round(self.seconds, 1),
            "clips_per_class": dict(sorted(labels.items())),
            "copies": self.copies,
            "doubles": [double.as_json() for double in self.doubles],
            "shared": self.shared,
            "other_files": self.other_files,
            "passed_over": self.passed_over.as_json(),
            "bad_records": [{**asdict(r), "reason": reason} for r, reason in self.bad_records],
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
        }


def journal_of(report: Path | None) -> Path | None:
    """Where verdicts are written as they fall, until the report is whole."""
    return report and report.with_name(f".{report.name}.journal")


def known_verdicts(report: Path) -> dict[str, Verdict]:
    """Path -> verdict of an earlier report and of an interrupted check; torn or foreign lines are passed over."""
    lines = []
    try:
        lines += json.loads(report.read_text(encoding="utf-8"))["verdicts"]
    except OSError:
        pass
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"report ({report}) exists and is not a report of data check; name another file."
        ) from None
    journal = journal_of(report)
    if journal.exists():
        for line in journal.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
    verdicts = {}
    for line in lines:
        try:
            verdicts[line["path"]] = Verdict(**line)
        except (TypeError, KeyError):
            continue
    return verdicts


def render_audit(audit: Audit, *, most: int = 50) -> str:
    """The summary a person reads: bad files first, then counts."""
    lines = [f"{v.path}: {v.kind}: {v.reason}" for v in audit.bad[:most]]
    if len(audit.bad) > most:
        lines.append(f"... and {len(audit.bad) - most} more; the report lists them all")
    lines += [f"{record.path}: {reason}" for record, reason in audit.bad_records[:most]]
    odd = [verdict for verdict in audit.verdicts if verdict.note]
    lines += [f"{v.path}: read, but {v.note}" for v in odd[:most]]
    if len(odd) > most:
        lines.append(
            f"... and {len(odd) - most} more are read with a note; the report lists them all"
        )
    lines += [str(double) for double in audit.doubles[:most]]
    if len(audit.doubles) > most:
        lines.append(f"... and {len(audit.doubles) - most} more named twice")
    if audit.copies:
        groups = len(audit.copies)
        lines.append(
            f"{groups} group(s) of files with the same bytes, e.g. {' = '.join(audit.copies[0][:3])}"
        )
    if audit.shared:
        lines.append(
            f"{len(audit.shared)} file(s) lie in more than one of the lists or folders, e.g. {audit.shared[0]}"
        )
    counts = audit.counts()
    good = counts.pop("ok")
    kinds = "".join(f", {number} {kind}" for kind, number in counts.items())
    if audit.contradictions:
        kinds += f", {len(audit.contradictions)} with different labels"
    lines.append(f"{good} of {len(audit.verdicts)} videos are good{kinds} "
                 f"({audit.reused} known from before, {audit.seconds:.0f} s)")  # fmt: skip
    lines += [str(audit.passed_over)] if str(audit.passed_over) else []
    return "\n".join(map(shown, lines))
