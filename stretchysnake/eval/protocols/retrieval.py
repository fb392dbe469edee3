"""Video retrieval: what the nearest gallery videos of each query say about its label.

Paper A.3: gallery = all training samples, query = all test samples, frozen features, top-1. Paper does not
say which similarity; we use cosine because [CLS] norms change with the scale. L2 is an option.
Q queries, G gallery videos.
"""

import re

import torch
from torch import Tensor

from stretchysnake.eval.features.extraction import FeatureSet, check_comparable
from stretchysnake.eval.protocols.nearest import nearest, scores
from stretchysnake.eval.protocols.self_matches import places

METRICS = {
    "top1": "share of queries whose nearest gallery video has their label (the paper's)",
    "recall@K": "share of queries with their label among the K nearest",
    "knn@K": "share of queries whose label wins the vote of the K nearest; ties go to the lowest label",
    "map": "mean average precision of the whole ranking, over queries",
    "gallery_top1": "top-1 of every gallery video among the others: chooses a scale without test queries",
}


def check_metrics(metrics, *, num_gallery: int | None = None) -> None:
    """ValueError when a name is no metric, or asks for more neighbours than the gallery has."""
    if not metrics:
        raise ValueError(f"metrics (none) must name at least one of: {', '.join(METRICS)}")
    for name in metrics:
        parsed = re.fullmatch(r"(recall|knn)@([1-9]\d*)", name)
        if not parsed and name not in ("top1", "map", "gallery_top1"):
            raise ValueError(
                f"metric ({name!r}) must be one of: {', '.join(METRICS)} (K a number, as in recall@5)"
            )
        if parsed and num_gallery is not None and int(parsed[2]) > num_gallery:
            raise ValueError(
                f"metric ({name}) asks for more neighbours than the gallery has ({num_gallery}); "
                f"nearest: {parsed[1]}@{num_gallery}"
            )


def retrieve(
    gallery: FeatureSet,
    queries: FeatureSet,
    metrics=("top1",),
    *,
    similarity: str = "cosine",
    group_safe: bool = False,
    leave_out_self: bool = False,
) -> dict[str, Tensor]:
    """The value of every query (Q,) under each metric of METRICS: bool, and fp64 for "map".

    "gallery_top1" has a value for every gallery video instead. group_safe drops the gallery videos of a
    query's own group (UCF101's groups, MotionDigits' actors), leave_out_self the query itself where the gallery
    holds it. ValueError where the number would mean
    nothing: other scales or models, labels missing in the gallery, one class, no query.
    """
    check_comparable(gallery, queries)
    check_metrics(metrics, num_gallery=len(gallery.paths))
    exclude = None
    if group_safe or leave_out_self:
        _check_groups(group_safe, queries, gallery)
        if group_safe and leave_out_self:
            _check_one_group(queries, gallery)
        exclude = _exclusion_ids(queries, gallery, group_safe, leave_out_self)
        _check_reachable(gallery, queries, exclude, group_safe)
    ks = [int(name.split("@")[1]) for name in metrics if "@" in name]
    if "top1" in metrics:
        ks.append(1)
    values = {}
    if ks:
        neighbours = nearest(
            queries.features, gallery.features, k=max(ks), similarity=similarity, exclude=exclude
        )
        labels = gallery.labels[neighbours]  # (Q, k)
        right = labels == queries.labels[:, None]
    for name in metrics:
        if name == "top1":
            values[name] = right[:, 0]
        elif name.startswith("recall@"):
            values[name] = right[:, : int(name[7:])].any(1)
        elif name.startswith("knn@"):
            values[name] = labels[:, : int(name[4:])].mode(dim=1).values == queries.labels
        elif name == "map":
            values[name] = average_precision(
                gallery, queries, similarity=similarity, exclude=exclude
            )
        else:
            values[name] = gallery_hits(gallery, similarity=similarity, group_safe=group_safe)
    return values


def gallery_hits(
    gallery: FeatureSet, *, similarity: str = "cosine", group_safe: bool = False
) -> Tensor:
    """(G,) bool: top-1 inside the gallery, each video leaving itself (or its whole group) out.

    A video that is the only one of its class cannot be right and counts as wrong, at every scale alike.
    """
    if group_safe:
        _check_groups(group_safe, gallery)
        ids, _ = _exclusion_ids(gallery, gallery, group_safe, False)
        alone = ids < 0  # without a group, a video still leaves itself out
        ids = torch.where(alone, ids.max().clamp(min=0) + 1 + torch.arange(len(ids)), ids)
    else:
        ids = torch.arange(len(gallery.paths))
    neighbours = nearest(
        gallery.features, gallery.features, similarity=similarity, exclude=(ids, ids)
    )[:, 0]
    return gallery.labels[neighbours] == gallery.labels


def average_precision(
    gallery: FeatureSet,
    queries: FeatureSet,
    *,
    similarity: str = "cosine",
    exclude: tuple[Tensor, Tensor] | None = None,
    chunk: int = 64,
) -> Tensor:
    """(Q,) fp64: the mean, over the gallery videos of a query's class, of precision at their rank.

    Ranks the whole gallery for chunk queries at a time; equal scores go to the lower gallery index.
    """
    precisions = []
    rank = torch.arange(1, len(gallery.paths) + 1, dtype=torch.float64)
    for start in range(0, len(queries.paths), chunk):
        here = slice(start, start + chunk)
        score = scores(queries.features[here], gallery.features, similarity=similarity)
        relevant = gallery.labels == queries.labels[here, None]  # (chunk, G)
        if exclude is not None:
            dropped = exclude[0][here, None] == exclude[1]
            score.masked_fill_(dropped, -torch.inf)
            relevant &= ~dropped
        order = score.sort(dim=1, descending=True, stable=True).indices
        relevant = relevant.gather(1, order).double()
        precision = relevant.cumsum(1) / rank
        precisions.append((precision * relevant).sum(1) / relevant.sum(1))
    return torch.cat(precisions)


def shared_places(gallery: FeatureSet, queries: FeatureSet) -> list[int]:
    """The rows of the queries that are videos of the gallery: equal path, start and end."""
    held = set(_places(gallery))
    return [row for row, place in enumerate(_places(queries)) if place in held]


def _places(features: FeatureSet) -> list[tuple]:
    return places(features.paths, features.segments or [(None, None)] * len(features.paths))


def _check_groups(group_safe: bool, *sets: FeatureSet) -> None:
    if group_safe and not any(name for features in sets for name in features.groups):
        raise ValueError(
            "group_safe (True) needs groups, and no clip has one; add a column named group to the lists"
        )


def _exclusion_ids(
    queries: FeatureSet, gallery: FeatureSet, group_safe: bool, leave_out_self: bool
) -> tuple[Tensor, Tensor]:
    """Ids of both sets, equal where a query must not find a gallery video; -1 and -2 meet no other.

    The id is the group's where there is one, else the video's own.
    """
    named = []
    for features in (queries, gallery):
        videos = _places(features) if leave_out_self else [None] * len(features.paths)
        groups = features.groups if group_safe else [""] * len(features.paths)
        named.append([group or place for group, place in zip(groups, videos, strict=True)])
    numbers = {name: i for i, name in enumerate(dict.fromkeys(filter(None, named[0] + named[1])))}
    return tuple(
        torch.tensor([numbers.get(name, absent) for name in names], dtype=torch.int64)
        for names, absent in zip(named, (-1, -2), strict=True)
    )


def _check_one_group(*sets: FeatureSet) -> None:
    """ValueError when a video has two groups: its group would not leave the video itself out."""
    groups: dict[tuple, str] = {}
    for features in sets:
        for place, group in zip(_places(features), features.groups, strict=True):
            if groups.setdefault(place, group) != group:
                raise ValueError(
                    f"{place[0]} must have one group in both lists, and has {groups[place]!r} and {group!r}"
                )


def _check_reachable(
    gallery: FeatureSet, queries: FeatureSet, ids: tuple, group_safe: bool
) -> None:
    of_class: dict[int, set[int]] = {}
    for label, number in zip(gallery.labels.tolist(), ids[1].tolist(), strict=True):
        of_class.setdefault(label, set()).add(number)
    for place, label in enumerate(queries.labels.tolist()):
        if of_class[label] != {int(ids[0][place])}:
            continue
        group = queries.groups[place] if group_safe else ""
        what = f"of its own group ({group}), which group_safe drops" if group else "itself"
        raise ValueError(
            f"query {queries.paths[place]}: every gallery video of its class (label {label}) is {what}; "
            f"leave the query out or use other {'groups' if group else 'videos'}"
        )
