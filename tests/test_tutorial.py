"""The tutorial runs from top to bottom, shrunk: fewer videos, fewer steps."""

import re
import shlex
from pathlib import Path

from stretchysnake import cli

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "tutorial.md").read_text(encoding="utf-8")
SHRUNK = {
    "source=200, source_test=20, gallery=200, query=100": "source=1, source_test=1, gallery=20, query=6",
    "--steps 1000": "--steps 2 --batch_size 4",
}


def test_every_command_and_every_program_of_the_tutorial_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = TEXT
    for long, short in SHRUNK.items():
        assert long in text
        text = text.replace(long, short)
    blocks = re.findall(r"^```(python|bash)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 9
    for language, body in blocks:
        if language == "python":
            exec(compile(body, "tutorial.md", "exec"), {"__name__": "tutorial"})
            continue
        for line in body.splitlines():
            program, *words = shlex.split(line)
            assert program == "stretchysnake"
            assert cli.main(words) == 0, f"{line}\n{capsys.readouterr().err}"
    for made in (
        "report.html",
        "first.html",
        "found.html",
        "index/manifest.json",
        "runs/directions/report.html",
    ):
        assert (tmp_path / made).is_file()
    assert "(20, 64)" in capsys.readouterr().out


def test_links_point_at_files():
    docs = Path(__file__).resolve().parents[1] / "docs"
    links = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert links and all((docs / link).exists() for link in links)
