"""The indexes that a path names: itself, or those that lie in it."""

from pathlib import Path

from stretchysnake.search.index import is_index


def indexes_in(path: str) -> list[str]:
    """[path] of an index, a store or what is not there; of a folder of indexes those, by name."""
    folder = Path(path)
    if path.startswith("lancedb:") or is_index(folder) or not folder.is_dir():
        return [path]
    inside = sorted(str(one) for one in folder.iterdir() if is_index(one))
    return inside or [path]
