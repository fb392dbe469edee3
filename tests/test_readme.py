"""The README is run: its Python executes, its targets, links and tree exist (its commands: test_shown_commands.py)."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [line.split("#")[0].split() for line in lines if line.split()[:1] == [program]]


@pytest.mark.parametrize("source", blocks("python"))
def test_python_runs(source):
    exec(compile(source, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("command", commands("make"), ids=" ".join)
def test_make_targets_exist(command):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{command[1]}:", makefile, flags=re.MULTILINE)


def test_links_point_at_files():
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_tree_is_true():
    (tree,) = blocks("text")
    folders: list[str] = []
    for line in tree.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [name]
        path = ROOT.joinpath(*folders)
        assert path.exists(), f"README's tree shows {'/'.join(folders)}, which does not exist"
