"""Which segments of an index are joined when it is written, and the joined rows in order.

Adding to an index writes a segment of what is new, and joins it with its neighbours by this rule, so that few segments
are left and little is written again:

- A new segment takes in the one before it while both together have at most SMALL rows, so a small index is always one
  segment, with the bytes of one made at once; or while the one before has fewer than RATIO times its rows and both
  together at most LARGE.
- One that lost more than half of its rows is written again without them, if at most LARGE are left.

So an index that grows by single videos has about log4(LARGE / SMALL) + rows / LARGE segments, and no addition writes
more than LARGE rows of before. `compact` joins all.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence

from stretchysnake.search.segments.segment import Segment
from stretchysnake.search.segments.writing import WrittenVideo

SMALL, LARGE, RATIO = 2**13, 2**18, 4


def joined_with(segments: Sequence[Segment], counts: Sequence[int], num_new: int) -> list[int]:
    """The places of the segments to be written again with num_new new rows; counts: the rows that count of each."""
    places = [
        place
        for place, (segment, count) in enumerate(zip(segments, counts, strict=True))
        if not segment.name or (count < len(segment.features) / 2 and 0 < count <= LARGE)
    ]
    total = num_new + sum(counts[place] for place in places)
    for place in reversed(range(len(segments))):
        if place in places or not counts[place]:
            continue
        both = counts[place] + total
        if both > SMALL and not (counts[place] < RATIO * total and both <= LARGE):
            break
        places.append(place)
        total = both
    return sorted(places)


def never_twice(videos: list[WrittenVideo]) -> WrittenVideo:
    """`same` of `in_order` for the segments of one index, which hold a path once."""
    raise AssertionError(f"{videos[0][0][0].file.path} stands in two segments")


def in_order(
    sources: Sequence[Iterator[WrittenVideo]],
    *,
    same: Callable[[list[WrittenVideo]], WrittenVideo] = never_twice,
) -> Iterator[WrittenVideo]:
    """The videos of sources that are each sorted by path, sorted by path; `same` chooses among several of one path."""
    ordered = heapq.merge(*sources, key=lambda video: video[0][0].file.path)
    equal: list[WrittenVideo] = []
    for video in ordered:
        if equal and equal[0][0][0].file.path != video[0][0].file.path:
            yield equal[0] if len(equal) == 1 else same(equal)
            equal = []
        equal.append(video)
    if equal:
        yield equal[0] if len(equal) == 1 else same(equal)


def videos_of(segment: Segment, without: set[int] = frozenset()) -> Iterator[WrittenVideo]:
    """The videos of a segment that count, but for those of these numbers."""
    return (segment.video(video) for video in segment.videos() if video not in without)
