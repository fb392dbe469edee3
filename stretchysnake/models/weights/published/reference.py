"""What a name of weights refers to: a published file, or any file on the Hub.

reference = reference_of("hf://org/name/model.safetensors@v1")
"""

import os
import re
from dataclasses import dataclass

from stretchysnake.models.weights.published.table import near_names, published_named
from stretchysnake.models.weights.shipped.shipped import shipped

SCHEME = "hf://"
PAGES = "https://huggingface.co"
MODEL_FILE = "model.safetensors"
"""What a repository's weights are called, where nobody says."""
_FORM = "hf://org/name[/file][@revision]"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A file on the Hub."""

    name: str
    """As the caller wrote it, or our short name."""
    repo: str
    file: str
    revision: str
    """A commit, tag or branch."""
    sha256: str | None = None
    hash_by: str = "the Hub's page"
    licence: str | None = None
    """None: its page is asked."""
    class_list: str | None = None
    """Which list of classes its outputs are in the order of (table.py)."""

    @property
    def key(self) -> str:
        """A file name for what is kept of it."""
        return re.sub(r"[^\w.@-]", "--", self.name.removeprefix(SCHEME))

    @property
    def by_hand(self) -> str:
        """What the file must be called where a person puts it: its own name, unless many are called so."""
        name = self.file.rpartition("/")[2]
        is_own = not self.name.startswith(SCHEME) and name != MODEL_FILE
        suffix = os.path.splitext(name)[1]
        return name if is_own else self.key.removesuffix(suffix) + suffix

    @property
    def page(self) -> str:
        """Where a person finds it."""
        return f"{PAGES}/{self.repo}/blob/{self.revision}/{self.file}"


def reference_of(weights: str | os.PathLike) -> Reference | None:
    """The file on the Hub that these words name; None where they are a path.

    ValueError for a name that is neither: no file, no folder, and not in the table.
    """
    text = os.fspath(weights)
    if text.startswith(SCHEME):
        return _of_hub(text)
    if text.startswith("hf:/"):  # as pathlib writes it
        raise ValueError(
            f"weights ({text}) must be text, not a Path, to name a file on the Hub: {_FORM}"
        )
    if os.path.exists(text):
        return None
    if (row := published_named(text)) is not None:
        return Reference(
            name=row.name,
            repo=row.repo,
            file=row.file,
            revision=row.revision,
            sha256=row.sha256,
            hash_by=row.hash_by,
            licence=row.licence,
            class_list=row.classes,
        )
    if os.path.dirname(text) or not text:
        return None
    near = near_names(text.removesuffix(".pth"))
    if os.path.splitext(text)[1] and not near:
        return None  # a path of a file that is not there: whoever reads it says so
    hint = f"did you mean: {', '.join(near)}?" if near else "all names: stretchysnake weights"
    raise ValueError(
        f"weights ({text}) must be an existing file or folder, or a published name; {hint}"
    )


def is_by_name(weights: str | os.PathLike) -> bool:
    """Whether these words name weights that are published or came with the package, not a path."""
    text = os.fspath(weights)
    return text.startswith(SCHEME) or (
        not os.path.exists(text)
        and (shipped(text) is not None or published_named(text) is not None)
    )


def _of_hub(text: str) -> Reference:
    path, _, revision = text.removeprefix(SCHEME).partition("@")
    org, _, rest = path.partition("/")
    name, _, file = rest.partition("/")
    parts = [org, name, *(file.split("/") if file else [])]
    good = all(re.fullmatch(r"[\w.-]+", part) and part.strip(".") for part in parts)
    if not good or ("@" in text and not re.fullmatch(r"[\w./-]+", revision)):
        raise ValueError(
            f"weights ({text}) must have the form {_FORM}, e.g. hf://OpenGVLab/VideoMamba/FILE@main"
        )
    return Reference(
        name=text, repo=f"{org}/{name}", file=file or MODEL_FILE, revision=revision or "main"
    )
