"""A bar on a terminal with rich, lines everywhere else."""

import io
import sys

import pytest

from stretchysnake.cli.progress import Progress, ProgressBar, bar_is_possible
from stretchysnake.flexibility import Scale
from stretchysnake.train.watch.meter import StepReport

REPORT = StepReport(
    name="static_tokens", step=30, steps=60, loss=1.2345, lr=1e-3, scale=Scale(8, 32, 8),
    clips_per_second=41.0, data_wait=0.02, memory=3 * 2**29, seconds_left=3700.0,
)  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_report_is_one_line_of_all_numbers():
    assert str(REPORT) == (
        "static_tokens step    30/60 loss 1.234 lr 1.0e-03 T=8   S=32  P=8     41 clips/s, waits 2%, "
        "1.5 GiB, 61.7 min left"
    )


def test_lines_stay_where_there_is_no_terminal(monkeypatch, capsys):
    assert not bar_is_possible()
    Progress()(REPORT)
    assert capsys.readouterr().err == f"{REPORT}\n"


def test_without_rich_a_terminal_gets_a_line(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    assert not bar_is_possible()


@pytest.mark.extra("progress")
def test_bar_shows_all_numbers(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    assert bar_is_possible()
    bar = ProgressBar()
    bar("checked 3 of 12 videos")
    bar(REPORT)
    bar.close()
    shown = sys.stderr.getvalue()
    for text in ("checked 3 of 12 videos", "static_tokens", "30/60", "loss 1.234", "lr 1.0e-03", "T=8 S=32 P=8",
                 "41 clips/s", "waits 2%", "1.5 GiB", "1:01:40 left"):  # fmt: skip
        assert text in shown, text


@pytest.mark.extra("progress")
def test_a_name_in_brackets_is_no_markup(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = ProgressBar()
    bar("skipped [red]a[/nope]\x1b[2J.mp4")
    bar.close()
    assert r"skipped [red]a[/nope]\x1b[2J.mp4" in sys.stderr.getvalue()
