"""Every picture that rows can fill, in the order of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stretchysnake.report.figures import trade_offs as figures
from stretchysnake.report.figures.cost_front import accuracy_over_cost
from stretchysnake.report.figures.picture import Picture
from stretchysnake.report.figures.protocol_bars import protocol_bars
from stretchysnake.report.figures.size_curves import accuracy_over_size
from stretchysnake.report.figures.summary import summary
from stretchysnake.report.file_names import told_apart
from stretchysnake.report.pages.context import ReportContext
from stretchysnake.report.tables.cells import (
    datasets_of,
    main_dataset,
    main_rows,
    peer_of,
    peers_of,
    protocols_of,
    rows_of_peer,
)
from stretchysnake.results.rows import Row, latest, select


def first_protocol_rows(rows: Sequence[Row]) -> list[Row]:
    """top1 of the protocol that the report is about: retrieval where it was measured, else the first one."""
    rows = main_rows(rows)
    first = protocols_of(select(rows, metric="top1"))[:1]
    return latest(select(rows, metric="top1", protocol=first))


def ordered_datasets(rows: Sequence[Row]) -> list[str]:
    """The main data set first."""
    main = main_dataset(rows)
    return [main, *[name for name in datasets_of(rows) if name != main]]


def pictures_of(rows: Sequence[Row], context: ReportContext) -> dict[str, list[Picture]]:
    """Pictures by kind: heat, size, cost (one of each data set), summary, protocols, loss, and peers: size of each
    other model (the paper's Figures A1 to A12), then its losses.

    A picture that the rows cannot fill is left out, so no axis is empty.
    """
    top1 = first_protocol_rows(rows)
    chance = {suite.dataset: suite.chance for suite in context.suites}
    datasets = ordered_datasets(top1)
    pictures = {
        "heat": [figures.heat_maps(top1, dataset=name) for name in datasets],
        "size": [accuracy_over_size(top1, dataset=d, chance=chance.get(d)) for d in datasets],
        "cost": [accuracy_over_cost(top1, dataset=d, chance=chance.get(d)) for d in datasets],
        "summary": [summary(main_rows(rows))],
        "protocols": [protocol_bars(main_rows(rows))],
        "loss": [figures.loss_curves([i for i in context.training if not peer_of(i.model)])],
        "peers": _of_peers(rows, context),
    }
    drawn = [(kind, p) for kind, made in pictures.items() for p in made if p is not None]
    given = [picture.file_name for _, picture in drawn]
    by_kind: dict[str, list[Picture]] = {kind: [] for kind in pictures}
    for (kind, picture), old, new in zip(drawn, given, told_apart(given), strict=True):
        named = replace(picture, name=picture.name + new.removeprefix(old))
        by_kind[kind].append(named)
    return by_kind


def _of_peers(rows: Sequence[Row], context: ReportContext) -> list[Picture]:
    chance = {suite.dataset: suite.chance for suite in context.suites}
    pictures = []
    for peer in peers_of(rows) if len(main_rows(rows)) < len(rows) else ():
        top1 = first_protocol_rows(rows_of_peer(rows, peer))
        made = [
            accuracy_over_size(top1, dataset=d, chance=chance.get(d), name=f"size-{peer}")
            for d in datasets_of(top1)
        ]
        trained = [
            replace(info, model=info.model.removeprefix(f"{peer} "))
            for info in context.training
            if peer_of(info.model) == peer
        ]
        if (loss := figures.loss_curves(trained)) is not None:
            made.append(replace(loss, name=f"loss-{peer}"))
        pictures += [
            replace(p, alt=f"{peer}: {p.alt}", caption=f"{peer}. {p.caption}")
            for p in made
            if p is not None
        ]
    return pictures
