"""List files -> rows of text: comma, tab, semicolon or space separated, or JSON lines, found out by looking.

Lines that begin with # are comments.
Every error names file, line, column, what was found, what was expected and the fix.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_ENDINGS = (
    "mp4 avi webm mkv mov mpg mpeg m4v gif ts mts m2ts m2t vob m2v m1v mpe flv f4v qt mk3d wmv asf 3gp 3gpp 3g2 ogv "
    "ogm mxf divx xvid dv rm rmvb y4m nut wtv ivf"
)
VIDEO_EXTENSIONS = tuple(f".{ending}" for ending in _ENDINGS.split())
LIST_EXTENSIONS = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".list")

_SEPARATORS = {"\t": "tab", ",": "comma", ";": "semicolon", " ": "space"}
_EXCEL_SEPARATOR = re.compile(r"sep=([,;\t])\s*", re.IGNORECASE)
_PATH_THEN_LABEL = re.compile(
    rf"(.*(?:{'|'.join(map(re.escape, VIDEO_EXTENSIONS))}))\s+(.+)", re.IGNORECASE | re.DOTALL
)


class ListRow(NamedTuple):
    line: int
    cells: dict[str, str]


def is_video_name(name: str) -> bool:
    """Whether a file name ends like a video's."""
    return name.lower().endswith(VIDEO_EXTENSIONS)


def read_text(source: Path) -> str:
    """The text of a UTF-8 file, with or without byte-order mark; line ends as they are."""
    try:
        return source.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        expected = (
            "expected a list of videos; give the list, or a folder with one sub-folder per class."
            if is_video_name(source.name)
            else "expected text in UTF-8; save the file as UTF-8."
        )
        line = error.object[: error.start].count(b"\n") + 1
        byte = f"found byte 0x{error.object[error.start]:02x}, which is not UTF-8"
        raise ValueError(f"{source} line {line}: {byte}, {expected}") from None


def without_comments(text: str, columns: Sequence[str]) -> tuple[str, int]:
    """(the text with comment lines left blank, how many there were); the other lines keep their numbers.

    A line that begins with # is a comment, unless it names a video at once (`#1.mp4,0`), continues a cell in quotes, or
    is a header that marks itself so (`# path, label`).
    """
    parts = re.split(r"(\r\n|\r|\n)", text)
    comments, quotes, begun = 0, 0, False
    for place in range(0, len(parts), 2):
        line = parts[place].lstrip()
        if line.startswith("#") and quotes % 2 == 0:
            words = {word for word in re.split(r"[\s,;]+", line.lstrip("# ").lower()) if word}
            cells = [_guess(line, separator) for separator in _SEPARATORS]
            if not begun and {"path", "label"} <= words <= set(columns):
                parts[place] = line = line.lstrip("# ")
            elif line[1:2].isspace() or not any(row and is_video_name(row[0]) for row in cells):
                parts[place] = line = ""
                comments += 1
        begun = begun or bool(line)
        quotes += line.count('"')
    return "".join(parts), comments


def read_list(
    source: Path, columns: Sequence[str], *, needed: Sequence[str] = ("path", "label")
) -> list[ListRow]:
    """The rows of a list file; without a header the cells are named by `columns`, in order.

    `needed` are the columns that must be there; with "path" alone, lines that are nothing but a path are rows too.
    """
    text, _ = without_comments(read_text(source), columns)
    if tuple(needed) == ("path",) and (rows := _plain_paths(text)):
        return rows
    start = text.lstrip()[:1]
    if source.suffix.lower() in (".jsonl", ".ndjson") or start == "{":
        return _read_jsonl(source, text)
    if start == "[":
        raise ValueError(
            f"{source} line 1: found a JSON array, expected one object per line; write JSON lines."
        )
    return _read_table(source, text, columns, needed)


def _plain_paths(text: str) -> list[ListRow]:
    """The rows of a list that holds paths alone, with or without the header `path`; none where it holds more."""
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line]
    if lines and lines[0][1].strip('"').lower() == "path":
        lines = lines[1:]
    if not all(is_video_name(line.strip('"')) for _, line in lines):
        return []
    if any(is_video_name(cell) for _, line in lines for cell in re.split(r"[\t,;]", line)[:-1]):
        return []  # two paths in a line: somebody's other format
    quoted = [len(line) > 1 and line[0] == line[-1] == '"' for _, line in lines]
    return [
        ListRow(number, {"path": line[1:-1].replace('""', '"') if within else line})
        for (number, line), within in zip(lines, quoted, strict=True)
    ]


def _read_jsonl(source: Path, text: str) -> list[ListRow]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            message = f"found {line[:40]!r}, expected one JSON object ({error.msg}); fix the line."
            raise ValueError(f"{source} line {number} column {error.colno}: {message}") from None
        except (ValueError, RecursionError):  # a number of thousands of digits, thousands of "["
            message = f"found {line[:40]!r}, expected one flat JSON object; fix the line."
            raise ValueError(f"{source} line {number}: {message}") from None
        if not isinstance(row, dict):
            raise ValueError(
                f"{source} line {number}: found {line[:40]!r}, expected an object; "
                'write {"path": "clip.mp4", "label": 0}.'
            )
        for place, (key, value) in enumerate(row.items(), 1):
            is_text = isinstance(value, str) or value is None
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_text and (not is_number or key == "path"):
                expected = "a string" if key == "path" else "a string or a number"
                raise ValueError(
                    f"{source} line {number} column {place} ({key}): found {str(value)[:40]!r}, "
                    f"expected {expected}; write it as one."
                )
        rows.append(ListRow(number, {k: "" if v is None else str(v) for k, v in row.items()}))
    return rows


def _read_table(
    source: Path, text: str, columns: Sequence[str], needed: Sequence[str]
) -> list[ListRow]:
    first, _, rest = text.partition("\n")
    # spreadsheets write the separator into a line of its own
    told = _EXCEL_SEPARATOR.fullmatch(first)
    if told:
        text = f"\n{rest}"
    lines = [line for line in text.splitlines()[:200] if line.strip()]
    if not lines:
        return []
    separator = told[1] if told else _sniff(lines)
    rows = list(
        _space_rows(source, text) if separator == " " else _csv_rows(source, text, separator)
    )
    if not rows:  # nothing but separators
        return []
    header = _header(source, rows, separator, needed)
    if header:
        columns, rows = header, rows[1:]
    elif len(rows[0][1]) > 1 and is_video_name(rows[0][1][1]) and not is_video_name(rows[0][1][0]):
        raise ValueError(
            f"{source} line {rows[0][0]} column 1 (path): found {rows[0][1][0]!r}, expected a video, which stands in "
            "column 2; swap the columns, or add the header 'label,path'."
        )
    fewest = len(columns) if header else 2
    most = 2 if separator == " " and not header else len(columns)
    named = []
    for number, cells in rows:
        if separator == " " and len(columns) > 2 and header:
            cells = " ".join(cells).split()
        while len(cells) > most and not cells[-1]:  # a separator behind the last cell
            cells = cells[:-1]
        if not fewest <= len(cells) <= most:
            expected = most if fewest == most else f"{fewest} to {most}"
            names = ", ".join(columns[:most])
            raise ValueError(
                f"{source} line {number}: found {len(cells)} {_SEPARATORS[separator]}-separated cells, "
                f"expected {expected} ({names}); quote cells that hold the separator."
            )
        named.append(ListRow(number, dict(zip(columns, cells, strict=False))))
    return named


def _sniff(lines: list[str]) -> str:
    """The separator under which the first line is a header, or most lines begin with a video's name."""
    words = {separator: _guess(lines[0], separator) for separator in _SEPARATORS}
    for separator, cells in words.items():
        if len(cells) > 1 and {"path", "label"} & {cell.strip().lower() for cell in cells}:
            return separator
    begins = {
        separator: sum(
            len(cells) > 1 and any(map(is_video_name, cells[:2]))
            for cells in (_guess(line, separator) for line in lines)
        )
        for separator in _SEPARATORS
    }
    if max(begins.values()):
        return max(begins, key=begins.get)
    return next(separator for separator in _SEPARATORS if separator in f"{lines[0]} ")


def _guess(line: str, separator: str) -> list[str]:
    if separator == " ":
        match = _PATH_THEN_LABEL.fullmatch(line.strip())
        return [match[1], match[2]] if match else line.split()
    return [cell.strip().strip('"') for cell in line.split(separator)]


def _header(
    source: Path, rows: list[tuple[int, list[str]]], separator: str, needed: Sequence[str]
) -> list[str] | None:
    """The column names, when the first row names any or is the only one without a video's name."""
    first = rows[0][1]
    if separator == " ":
        first = " ".join(first).split()
    names = [cell.strip().lower() for cell in first]
    while names and not names[-1]:
        names.pop()
    if not {"path", "label"} & set(names):
        if any(map(is_video_name, first)):
            return None
        others = sum(any(map(is_video_name, cells)) for _, cells in rows[1:])
        if 2 * others <= len(rows) - 1:
            return None
    for column in needed:
        if names.count(column) != 1:
            expected = f"expected one column named {column!r}; rename the columns."
            raise ValueError(
                f"{source} line {rows[0][0]}: found columns {', '.join(names)}, {expected}"
            )
    return names


def _csv_rows(source: Path, text: str, separator: str, number: int = 1):
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    first = number
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            message = f"found a cell that cannot be read ({error}); double the quotes inside a quoted cell."
            raise ValueError(f"{source} line {number}: {message}") from None
        if cells is None:
            return
        stripped = list(map(str.strip, cells))
        if any(stripped):
            stripped[0] = cells[0]
            yield number, stripped
        number = first + reader.line_num


def _space_rows(source: Path, text: str):
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line:
            continue
        if line.startswith('"'):
            yield from _csv_rows(source, line, " ", number)
            continue
        match = _PATH_THEN_LABEL.fullmatch(line)  # both the path and the label may hold spaces
        if match is None:
            yield number, line.rsplit(maxsplit=1)
        elif all(word.isdecimal() for word in match[2].split()):  # `path frames label` is no pair
            yield number, [match[1], *match[2].split()]
        else:
            yield number, [match[1], match[2]]
