"""What is kept of weights that were fetched: the folder, the copy that is read, and what is remembered of the source.

    folder/
      videomamba-m-k400-f16.safetensors    converted, so that a second start reads no pickle
      videomamba-m-k400-f16.source.json    the Record: source, commit, hashes, licence
      videomamba_m16_k400_f16_res224.pth   put there by hand, where there is no network

A file that is safetensors already stays where it was fetched to. Records are small and stay when copies are deleted,
so that other bytes under a name once used are noticed.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from stretchysnake.whole_file import write_whole

VARIABLE = "STRETCHYSNAKE_WEIGHTS"
_SUFFIX = ".source.json"


def weights_folder() -> Path:
    """The folder that $STRETCHYSNAKE_WEIGHTS names, else stretchysnake/weights in the user's cache."""
    # The one variable read below the command line: where a machine keeps weights is no caller's business, and
    # load_model must find what `stretchysnake weights get` fetched.
    given = os.environ.get(VARIABLE)
    return Path(given or "~/.cache/stretchysnake/weights").expanduser()


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of weights since their first use."""

    name: str
    source: str
    """hf://org/name/file@commit, or "by hand: file"."""
    commit: str | None
    sha256: str
    """Of the file as published."""
    licence: str
    path: str
    """Of the copy that is read; relative to the folder, or absolute in huggingface_hub's cache."""
    num_bytes: int
    path_sha256: str
    """Of that copy."""

    def file(self, folder: Path) -> Path:
        return folder / self.path

    def is_there(self, folder: Path) -> bool:
        """Whether the copy is there with its size; its content is checked by `stretchysnake weights check`."""
        try:
            return self.file(folder).stat().st_size == self.num_bytes
        except OSError:
            return False


def record_path(folder: Path, key: str) -> Path:
    return folder / f"{key}{_SUFFIX}"


def read_record(folder: Path, key: str) -> Record | None:
    """What is remembered of a name; None before its first use. ValueError where the record is damaged."""
    path = record_path(folder, key)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Record(**{field.name: values[field.name] for field in fields(Record)})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"weights: the record ({path}) is damaged ({error}); delete it, and the next use counts as the first"
        ) from None


def write_record(folder: Path, key: str, record: Record) -> None:
    write_whole(record_path(folder, key), json.dumps(asdict(record), indent=1) + "\n")


def records(folder: Path) -> list[Record]:
    """All that is remembered, by name."""
    keys = sorted(path.name.removesuffix(_SUFFIX) for path in folder.glob(f"*{_SUFFIX}"))
    found = [read_record(folder, key) for key in keys]
    return [record for record in found if record is not None]


@contextmanager
def one_at_a_time(folder: Path, key: str) -> Iterator[None]:
    """Held while a name is fetched and converted: ranks and processes that want the same wait for the first."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f".{key}.lock", "a+") as file:
        try:
            import fcntl
        except ImportError:  # Windows: both do the work, and the same file comes out
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)  # lockf would let threads of one process pass
        yield
