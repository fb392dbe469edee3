"""The Hub: a file of it, its page's licence, and a folder sent to it. The one home of huggingface_hub, an extra.

Its cache, endpoint, offline mode and token are its own business (HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN). Its
errors are put into our words here, since some are no OSError and none names what a user asked for.
"""

import errno
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stretchysnake.models.weights.files import NOT_STATED
from stretchysnake.models.weights.published.cache import VARIABLE
from stretchysnake.models.weights.published.reference import PAGES, Reference
from stretchysnake.shown import first_line

INSTALL = "pip install 'stretchysnake[hub]'"


class Fetched(NamedTuple):
    """A file in huggingface_hub's own cache."""

    path: Path
    commit: str
    """What its revision was."""


def fetched(reference: Reference, *, commit: str | None = None, by_hand: Path) -> Fetched:
    """The file, downloaded where it is not cached; of a cached commit nothing is asked. Nothing is checked yet.

    RuntimeError, in one line, where it cannot be had: with its page, and the folder `by_hand` to put it into.
    """
    try:
        path = _download(reference.repo, reference.file, commit or reference.revision)
    except ImportError:
        raise RuntimeError(
            f"weights ({reference.name}) must be fetched once, which needs huggingface_hub: {INSTALL}; "
            f"{_by_hand(reference, by_hand)}"
        ) from None
    except Exception as error:  # some of its errors are those of its HTTP library
        raise RuntimeError(_in_our_words(error, reference, commit, by_hand)) from None
    return Fetched(path, _commit_of(path) or commit or reference.revision)


def licence_of(repo: str, commit: str) -> str:
    """What the front matter of a repository's page says; "not stated" where there is none, or no page."""
    try:
        text = _download(repo, "README.md", commit).read_text(encoding="utf-8", errors="replace")
    except Exception:  # no page, or no network now: the weights are here, and that is what counts
        return NOT_STATED
    front = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    said = front and re.search(r"^license:[ \t]*(\S.*)$", front[1], re.MULTILINE)
    return said[1].strip().strip("'\"") if said else NOT_STATED


def deleted(path: Path) -> None:
    """Remove a file of the cache, with the blob that its link shows."""
    blob = path.resolve()
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


def send(folder: Path, files: Sequence[str], repo: str, *, private: bool) -> str:
    """Put these files of a folder into a repository of the Hub, made where it is not there; its page."""
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise RuntimeError(f"publish needs huggingface_hub: {INSTALL}") from None
    try:
        api = HfApi(library_name="stretchysnake", library_version=_version())
        api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=list(files),
            commit_message="Weights by stretchysnake",
        )
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise RuntimeError(
                f"repository ({repo}): the Hub does not let you write there ({status}); log in with `hf auth login` "
                "or set HF_TOKEN to a token that may write"
            ) from None
        raise RuntimeError(
            f"repository ({repo}) could not be written: {first_line(error, 200)}; what was sent before the error "
            "is not visible, and the same command sends again"
        ) from None
    return f"{PAGES}/{repo}"


def _download(repo: str, file: str, revision: str) -> Path:
    from huggingface_hub import hf_hub_download

    ours = {"library_name": "stretchysnake", "library_version": _version()}
    return Path(hf_hub_download(repo, file, revision=revision, **ours))


def _version() -> str:
    from stretchysnake import __version__

    return __version__


def _commit_of(path: Path) -> str | None:
    """The 40 digits of .../snapshots/COMMIT/file."""
    parts = path.parts
    place = len(parts) - 1 - parts[::-1].index("snapshots") if "snapshots" in parts else None
    return parts[place + 1] if place is not None else None


def _by_hand(reference: Reference, folder: Path) -> str:
    return (
        f"or fetch {reference.page} by hand and put it, as {reference.by_hand}, into {folder} (or the folder that "
        f"{VARIABLE} names)"
    )


def _in_our_words(error: Exception, reference: Reference, commit: str | None, folder: Path) -> str:
    """What went wrong, and the way out."""
    from huggingface_hub import errors

    name, repo, file = reference.name, reference.repo, reference.file
    revision = commit or reference.revision
    page = f"{PAGES}/{repo}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    match error:
        case errors.GatedRepoError():
            return (
                f"weights ({name}): {repo} asks you to accept its terms first, on {page}, and to log in "
                "(hf auth login)"
            )
        case errors.RepositoryNotFoundError():
            return (
                f"weights ({name}): the Hub has no repository {repo}, or it is private; check the spelling, or log in "
                "(hf auth login, or HF_TOKEN)"
            )
        case errors.RevisionNotFoundError():
            told = f"weights ({name}): {repo} has no revision {revision}"
            if commit is not None and commit != reference.revision:
                return (
                    f"{told} any more, which it was at the first use; to take today's: stretchysnake weights get "
                    f"{name} --renew true"
                )
            return f"{told}; its commits: {page}/commits/main"
        case errors.LocalEntryNotFoundError():
            return (
                f"weights ({name}) are not here and the Hub does not answer "
                f"({first_line(error.__cause__ or error, 100)}); try again, {_by_hand(reference, folder)}"
            )
        case errors.EntryNotFoundError():
            return f"weights ({name}): {repo} has no file {file} at {revision[:12]}; name one of {page}/tree/{revision}"
        case OSError() if error.errno and not isinstance(error, (ConnectionError, TimeoutError)):
            place = error.filename or "the cache of huggingface_hub"
            way = "free some room there" if error.errno == errno.ENOSPC else "make it writable"
            return (
                f"weights ({name}) cannot be stored in {place}: {(error.strerror or '').lower()}; {way}, or set "
                "HF_HOME to another folder"
            )
    if status in (401, 403):
        return (
            f"weights ({name}): the Hub answered {status}: it wants you to log in (hf auth login, or HF_TOKEN), or "
            f"your token may not read {repo}"
        )
    told = f"it answered {status}" if status else first_line(error, 160)
    return f"weights ({name}) did not come whole from the Hub ({told}); try again, {_by_hand(reference, folder)}"
