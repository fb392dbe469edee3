"""Whether a folder holds this very run: its settings, its data and the weights it starts from.

A run keeps the key it was started under. Where the key of today differs, the settings are compared field by field and
the data by data_stamp.py, because paths and times of change may differ for one and the same training: another working
folder, a data set that was moved or copied, another machine.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stretchysnake.data.records import VideoRecord
from stretchysnake.data.records_key import records_key
from stretchysnake.models.weights.published.named import weights_file
from stretchysnake.ranks import Runtime
from stretchysnake.train.checkpoints.checkpoint import checkpoints_in
from stretchysnake.train.checkpoints.data_stamp import (
    Stamps,
    data_stamp,
    other_data,
    read_stamp,
    told,
)
from stretchysnake.train.checkpoints.outputs import PLACES
from stretchysnake.train.run import NO_EFFECT_ON_WEIGHTS, TrainRun
from stretchysnake.whole_file import sha256_of


def run_key(run: TrainRun, records: Sequence[VideoRecord], *, stamps: Stamps | None = None) -> str:
    """Hashes of settings, records and (where it starts from some) weights: equal keys, equal training."""
    key = f"{settings_digest(run)}-{records_key(records, stamps=stamps)[:8]}"
    if run.weights is None:
        return key
    path = weights_file(run.weights)
    if not path.is_file():
        raise ValueError(
            f"weights ({run.weights}) must be an existing file, or null to start from scratch"
        )
    return f"{key}-{sha256_of(path)[:8]}"


def settings_digest(run: TrainRun, **options) -> str:
    """Hash of the settings alone: the part of a row's run_id that says how its model was trained, and neither on
    which files nor from which weights."""
    return replace(run, data="", weights=None, out="").digest(**options)


def agreed_key(
    out: Path,
    run: TrainRun,
    records: Sequence[VideoRecord],
    *,
    stamps: Stamps | None,
    runtime: Runtime,
) -> tuple[str, list[str]]:
    """`key_in` of rank 0, on every rank, and so its ValueError; `stamps` are asked of rank 0 alone.

    Times of change may differ where machines have copies, and so many ranks should not ask for them.
    """
    answer: dict = {}
    if runtime.is_first:
        try:
            answer["key"], answer["notes"] = key_in(out, run, records, stamps=stamps)
        except (ValueError, RuntimeError) as error:  # the latter of weights by name
            if runtime.world_size == 1:
                raise
            answer["error"] = str(error)
    answer = json.loads(runtime.from_first(json.dumps(answer)))
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer["key"], answer["notes"]


def key_in(
    out: Path, run: TrainRun, records: Sequence[VideoRecord], *, stamps: Stamps | None = None
) -> tuple[str, list[str]]:
    """(the key of this run in `out`, what a user should know): of its run there, finished or not, or a new one.

    ValueError when `out` holds another run, finished or with checkpoints, and in what it differs: neither is ever
    overwritten. `stamps` as in `records_key`.
    """
    key = run_key(run, records, stamps=stamps)
    finished = (out / "run.json").is_file()
    if not finished and not checkpoints_in(out / "checkpoints"):
        return key, []
    try:
        written = json.loads((out / ("run.json" if finished else "started.json")).read_text())
        digest, settings = str(written["digest"]), dict(written["run"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"out ({out}) holds a damaged run ({error}); remove it or choose another"
        ) from None
    if digest == key:
        return key, []
    before = TrainRun.from_dict({**settings, "out": str(out)})
    differing, notes = _differing(before, run), []
    if before.is_dealt and digest.split("-")[0] == settings_digest(before, dealing=1):
        uneven = "scales_per_step: dealt less evenly there, by an earlier version"
        if finished:
            differing.append(uneven)
        else:  # finishing it is what a user can still do
            notes.append(f"out ({out}): {uneven}; steps from here on are dealt evenly")
    if digest.split("-")[2:] != key.split("-")[2:]:
        differing.append(f"weights: other bytes, {before.weights} there, {run.weights} here")
    then = read_stamp(out)
    if then is not None:
        now = data_stamp(records, sampled=0, stamps=stamps)
        if why := other_data(then, now, records, unfinished=not finished):
            differing.append(f"data: {why}")
        notes += told(then, now)
    elif digest.split("-")[1:2] != [_earlier_hash(before.data, run.data, records)]:
        differing.append("data: other paths or labels")
    else:
        notes += [
            f"out ({out}) holds this run by an earlier version, which noted paths and labels alone: "
            "neither segments nor sizes of files could be compared"
        ]
    if not differing:
        return digest, notes
    told_apart = "; ".join(differing)
    if finished:
        further = ""
        if before.steps != run.steps or before.epochs != run.epochs:
            further = f"; to train its result further: --weights {out}/weights.safetensors with another --out"
        raise ValueError(
            f"out ({out}) already holds another finished run ({told_apart}); "
            f"choose another folder{further}"
        )
    raise ValueError(
        f"out ({out}) holds an unfinished run with other settings or data ({told_apart}); "
        f"finish it with `stretchysnake train --resume {out}`, or choose another folder"
    )


def _differing(before: TrainRun, run: TrainRun) -> list[str]:
    """The fields in which two runs differ, each with both values: "steps: 6 there, 7 here"."""
    there, here = (_flat(json.loads(json.dumps(one.to_dict()))) for one in (before, run))
    return [
        f"{name}: {there.get(name)} there, {here[name]} here"
        for name in here
        if name.split(".")[0] not in (*NO_EFFECT_ON_WEIGHTS, *PLACES)
        and there.get(name) != here[name]
    ]


def _flat(values: dict, prefix: str = "") -> dict:
    """Nested fields by their names on the command line: optim.lr."""
    flat = {}
    for name, value in values.items():
        flat |= (
            _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return flat


def _earlier_hash(before: str, data: str, records: Sequence[VideoRecord]) -> str:
    """What versions without a data stamp noted of these records: paths as typed then, and labels."""
    of_folder = Path(data).is_dir()
    old, new = (Path(path) if of_folder else Path(path).parent for path in (before, data))
    listed = []
    for record in records:
        try:
            inside = Path(record.path).relative_to(new)
        except ValueError:  # an absolute path in the list
            path = record.path
        else:
            path = str(old / inside) if of_folder else os.path.join(old, inside)
        listed.append((path, record.label))
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:8]
