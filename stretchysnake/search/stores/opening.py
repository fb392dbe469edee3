"""The collection that a name means, opened by the backend asked for."""

from collections.abc import Sequence

from stretchysnake.search.stores.collection import Collection, FaissCollection, FolderCollection
from stretchysnake.search.stores.ivf import ApproximateCollection
from stretchysnake.search.stores.lance_collection import LanceCollection

BACKENDS = ("torch", "faiss", "approximate")


def open_collection(
    name: str,
    *,
    backend: str = "torch",
    where: str | None = None,
    index_name: str | Sequence[str] | None = None,
) -> Collection:
    """The collection of a folder, or of lancedb:URI.

    For a store: `where` is a LanceDB filter, e.g. "class_name = 'run'"; index_name chooses among its indexes.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend ({backend!r}) must be one of: {', '.join(BACKENDS)}")
    if name.startswith("lancedb:"):
        if backend != "torch":
            raise ValueError(f"backend ({backend}) is for index folders; {name} searches by itself")
        return LanceCollection(name.removeprefix("lancedb:"), where=where, index_name=index_name)
    for option, value in (("where", where), ("index_name", index_name)):
        if value is not None:
            raise ValueError(
                f"{option} ({value}) needs a LanceDB store, {name} is a folder; put the index there with "
                "stretchysnake embed ... --store lancedb:URI"
            )
    if backend == "approximate":
        return ApproximateCollection(name)
    return (FaissCollection if backend == "faiss" else FolderCollection)(name)
