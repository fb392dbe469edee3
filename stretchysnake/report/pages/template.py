"""Fills a page's template; the only file that knows jinja2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stretchysnake.shown import shown_lines


def check_page(name: str, path: str) -> None:
    """What a verb asks before its work: RuntimeError with the command to run where no page can be filled, ValueError
    where a folder stands at the page's place."""
    _jinja2()
    if Path(path).is_dir():
        raise ValueError(
            f"{name} ({path}) must be a file to write, and is a folder; give a name in it: {Path(path, 'page.html')}"
        )


def _jinja2():
    try:
        import jinja2
    except ImportError:
        raise RuntimeError(
            "jinja2 is not installed; the page needs it: pip install 'stretchysnake[report]'"
        ) from None
    return jinja2


def filled(template: str, filters: dict[str, Callable], **values: object) -> str:
    """The HTML text of a template beside this file. Every text among the values is escaped."""
    jinja2 = _jinja2()
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_in_lines,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    source = Path(__file__).with_name(template).read_text(encoding="utf-8")
    return environment.from_string(source).render(**values)


def _in_lines(value: object) -> object:
    """A text without control characters and halves of bytes, which a file's name may hold; markup as it is."""
    return shown_lines(value) if type(value) is str else value
