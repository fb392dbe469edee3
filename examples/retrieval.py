"""An index of a folder of videos, and the nearest ones to each of them.

python examples/retrieval.py stretchysnake-nano videos/ index/

The weights are nano ones that came with the package; a file, or another name (`stretchysnake weights`), does as well.
"""

import sys
from pathlib import Path

from stretchysnake.search.embed import embed_into
from stretchysnake.search.query import search


def main(weights: str, videos: str, index: str) -> None:
    done = embed_into(index, videos, weights=weights)
    print(f"{done.num_videos} videos in {index}, {done.num_new} of them new")
    for query in sorted(Path(videos).rglob("*.mp4"))[:3]:
        found = search(index, query, k=3, hide_same=True)
        near = ", ".join(f"{Path(hit.row.file.path).name} {hit.score:.3f}" for hit in found.hits)
        print(f"{query.name}: {near}")


if __name__ == "__main__":
    main(*sys.argv[1:])
