"""An SVG file's text made ready to stand inside a page."""

from __future__ import annotations

import re
from html import escape


def inline_svg(text: str, *, name: str, alt: str, ink: str) -> str:
    """The <svg> element alone: responsive, described by alt, its ids prefixed by name.

    It shrinks to 0.62 of its size, where 12 pt are still 10 pixels. The colour ink becomes currentColor, so that
    the figure follows the page's light or dark text. Several figures share a page, and ids are page-wide: without
    the prefix one figure's clip path would cut another's lines.
    """
    body = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", text, flags=re.DOTALL)
    body = body[body.index("<svg") :].strip()
    prefix = re.sub(r"[^A-Za-z0-9]+", "-", name)
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r'href="#', f'href="#{prefix}-', body)
    body = body.replace("url(#", f"url(#{prefix}-").replace(ink, "currentColor")
    opening, body = body.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', opening).group()
    width = float(box.split()[2]) * 4 / 3  # points to CSS pixels
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'{box} role="img" aria-label="{escape(alt, quote=True)}" '
        f'style="width:100%;max-width:{width:.0f}px;min-width:{0.62 * width:.0f}px;height:auto">{body}'
    )
