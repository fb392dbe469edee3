"""Names that others chose reach terminals and pages as plain text."""

import os

import pytest

from stretchysnake.shown import first_line, reason_of, shown, shown_lines

NAMES = {
    "a\nb.mp4": r"a\nb.mp4",
    "a\tb\r.mp4": r"a\tb\r.mp4",
    "\x1b[31mred\x07": r"\x1b[31mred\x07",
    "csi \x9b2J": r"csi \x9b2J",
    "gp\u202e4pm": r"gp\u202e4pm",
    "line\u2028end": r"line\u2028end",
    os.fsdecode(b"caf\xe9.mp4"): r"caf\udce9.mp4",
    "\ud800": r"\ud800",
}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_terminal_would_obey_is_written_out(name):
    assert shown(name) == NAMES[name]
    shown(name).encode("utf-8")


@pytest.mark.parametrize(
    "name", ["zwölf é", "片段 1", "🎬 👨\u200d👩\u200d👧", "می\u200cخواهم", "a\\b", "<i>&"]
)
def test_text_of_any_language_stays(name):
    assert shown(name) == name


def test_paths_and_errors_are_shown_too(tmp_path):
    assert shown(tmp_path / "a\nb") == f"{tmp_path}/a\\nb"
    assert shown(ValueError("x\ty")) == r"x\ty"


def test_line_ends_of_our_own_text_stay():
    assert shown_lines("two\nlines of \x1b[31m") == "two\nlines of \\x1b[31m"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("first\nsecond"), "first"),
        (ValueError("\n  first  \nsecond"), "first"),
        (ValueError(), "ValueError"),
        (RuntimeError(" \n"), "RuntimeError"),
    ],
    ids=["of two", "not the blank one", "no text", "blanks alone"],
)
def test_an_error_in_one_line(error, line):
    assert first_line(error) == reason_of(error) == line
    assert first_line(error, 3) == line[:3]


def test_the_system_says_its_reason_without_number_and_path():
    error = FileNotFoundError(2, "No such file or directory", "a.mp4")
    assert reason_of(error) == "No such file or directory"
    assert first_line(error) == "[Errno 2] No such file or directory: 'a.mp4'"
