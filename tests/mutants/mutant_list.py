"""The list of mutants: small changes of meaning, one at a time, that some fast test must notice.

One text file per folder of the package, so that old and new text stand there unquoted:

    train/step.py: label smoothing is ignored
    - F.cross_entropy(logits, labels, label_smoothing=smoothing)
    + F.cross_entropy(logits, labels)

What follows `- ` must occur exactly once in the file; several `- ` or `+ ` lines are several lines of it.
"""

import ast
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
PACKAGE = "stretchysnake"


class Mutant(NamedTuple):
    file: str
    """Inside the package, e.g. train/step.py."""
    meaning: str
    """What is wrong once it is planted."""
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.file}: {self.meaning}"


def read_mutants(folder: Path = HERE) -> list[Mutant]:
    """Every mutant of the lists in `folder`, in their order; ValueError names a line that is none of theirs."""
    return [mutant for path in sorted(folder.glob("*.txt")) for mutant in _read(path)]


def _read(path: Path) -> list[Mutant]:
    found: list[tuple[str, str, list[str], list[str]]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line[:2] in ("- ", "+ ") or line in ("-", "+"):
            if not found:
                raise ValueError(f"{path.name} line {number}: a change before any FILE: MEANING")
            found[-1][2 if line[0] == "-" else 3].append(line[2:])
        elif ".py: " in line:
            found.append((*line.split(": ", 1), [], []))
        else:
            raise ValueError(
                f"{path.name} line {number}: found {line[:60]!r}, expected FILE: MEANING"
            )
    return [
        Mutant(file, meaning, "\n".join(old), "\n".join(new)) for file, meaning, old, new in found
    ]


def planted(mutant: Mutant, text: str) -> str:
    """The text of its file with the mutant in it; ValueError where it does not apply."""
    if mutant.old == mutant.new or not mutant.old:
        raise ValueError(f"{mutant}: old and new text must differ, and old must not be empty")
    if (count := text.count(mutant.old)) != 1:
        raise ValueError(f"{mutant}: {mutant.old!r} occurs {count} times, expected once")
    changed = text.replace(mutant.old, mutant.new)
    try:
        ast.parse(changed)
    except SyntaxError as error:
        raise ValueError(f"{mutant}: does not parse any more ({error})") from None
    return changed
