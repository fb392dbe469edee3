"""A sweep whose rows are kept in a file: what an earlier call measured, down to single metrics, stays measured."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from stretchysnake.eval.protocols.protocol import Protocol
from stretchysnake.eval.sweeps.model_under_test import ModelUnderTest
from stretchysnake.eval.sweeps.sweep import protocol_name, sweep
from stretchysnake.ranks import SINGLE
from stretchysnake.results.rows import Row, append_rows, read_rows


def resumed_sweep(
    path: str | Path,
    tested: ModelUnderTest,
    dataset: str,
    clips: Callable[[], tuple],
    cells: Iterable[tuple[int, int]],
    *,
    protocols: Sequence[Protocol] = (Protocol(),),
    patch_from: str | None = None,
    belongs: Callable[[Row], bool] = lambda row: True,
    finish: Callable[[Row], Row] = lambda row: row,
    **options,
) -> list[Row]:
    """The rows of every cell, protocol and metric, in that order: found in the file `path`, or measured and added.

    clips() gives (gallery, queries), and is called when something has to be measured. A row in the file counts
    when it has the model's run_id, name, precision and weights (rows of earlier versions have none), this data set, and
    `belongs`; one that did not fit in memory is tried again, as there may be more of it now. A measured row is
    written as `finish` makes it. `options` are those of `sweep`. With several ranks, rank 0 reads, writes and
    returns the rows.
    """
    cells, runtime = list(dict.fromkeys(cells)), options.get("runtime", SINGLE)
    protocol_at = {
        (protocol_name(protocol, patch_from, tested.patch_resize), metric, *cell): protocol
        for cell in cells
        for protocol in protocols
        for metric in protocol.metrics
    }
    stored = read_rows(path) if runtime.is_first and Path(path).exists() else []
    stored = [row for row in stored if row.run_id == tested.run_id and row.dataset == dataset]
    stored = [
        row for row in stored if _place(row) in protocol_at and _is_of(row, tested, protocol_at)
    ]
    stored = {_place(row): row for row in stored if belongs(row)}
    rows = {place: row for place, row in stored.items() if row.status != "oom"}
    for cell in cells:
        wanted = [place for place in protocol_at if place[2:] == cell and place not in rows]
        # rank 0 alone has read the file, and says what is missing
        wanted = map(tuple, json.loads(runtime.from_first(json.dumps(wanted))))
        missing: dict[Protocol, list[str]] = {}
        for place in wanted:
            missing.setdefault(protocol_at[place], []).append(place[1])
        if not missing:
            continue
        measured = sweep(
            tested,
            dataset,
            *clips(),
            [cell],
            protocols=[protocol.only(metrics) for protocol, metrics in missing.items()],
            patch_from=patch_from,
            **options,
        )
        for row in map(finish, measured):
            earlier = stored.get(_place(row))
            if row.status != "oom" or earlier is None or earlier.status != "oom":
                append_rows(path, [row])
            rows[_place(row)] = row
    return [rows[place] for place in protocol_at] if runtime.is_first else []


def _is_of(row: Row, tested: ModelUnderTest, protocol_at: dict) -> bool:
    weights = tested.row_weights(protocol_at[_place(row)])
    same = row.model == tested.row_model and row.precision == tested.precision
    return same and row.weights in ("", weights)


def _place(row: Row) -> tuple:
    return row.protocol, row.metric, row.num_frames, row.size
