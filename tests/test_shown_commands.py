"""The commands that README.md and docs/*.md show, in blocks and within a line, use verbs and options that exist."""

import re
from functools import cache
from pathlib import Path

import pytest

from stretchysnake.cli.installation.completion import options_of
from stretchysnake.cli.verbs import VERBS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
options_known = cache(options_of)


def commands(text: str) -> list[list[str]]:
    """The words behind the program's name, in lines of blocks and in inline code; there `VERB --option` is one too."""
    block = r"^```\w*\n(.*?)^```"
    blocks = re.findall(block, text, flags=re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    rest = re.sub(block, "", text, flags=re.MULTILINE | re.DOTALL)
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", rest)]
    program = r"(?:(?:.*-m stretchysnake\.cli|stretchysnake) +)"
    found = [re.match(program + "([a-z].*)", line) for line in lines + inline]
    found += [re.match(rf"((?:{'|'.join(VERBS)}) .*--.*)", code) for code in inline]
    return [re.split(r"\s#|[;|]", match[1])[0].split() for match in found if match]


def unknown(words: list[str]) -> list[str]:
    verb, *rest = words
    if verb not in VERBS:
        return [verb]
    options = {re.split(r"[=,;:)]", word)[0] for word in rest if word.startswith("--")}
    return sorted(options - {*options_known(verb), "--help"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shown_commands_use_verbs_and_options_that_exist(page):
    shown = commands(page.read_text(encoding="utf-8"))
    wrong = {" ".join(words): found for words in shown if (found := unknown(words))}
    assert not wrong, f"{page.name} shows what the command line does not know: {wrong}"


def test_commands_are_found_in_blocks_and_within_lines():
    block = "```bash\nA=1 torchrun \\\n -m stretchysnake.cli train --config c\nstretchysnake embed a  # --no\n```"
    text = f"Run `stretchysnake  long\nx --form exact`, `embed --size 3` or\n{block}\nof `from stretchysnake import a`"
    assert commands(text) == [
        ["train", "--config", "c"],
        ["embed", "a"],
        ["long", "x", "--form", "exact"],
        ["embed", "--size", "3"],
    ]
    assert unknown(["long", "--method", "exact"]) == ["--method"]
    assert unknown(["lnog"]) == ["lnog"]
