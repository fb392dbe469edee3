"""Table 2 from a folder of weights and a folder of lists: what can be measured is, and what is missing is named.

Command   stretchysnake study table2 --weights weights/ --data lists/ --out runs/table2
          stretchysnake study table2                       what to put where; needs neither
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.eval.features.bad_videos import check_on_error, incomplete
from stretchysnake.recipes.table2.systems import (
    DATASETS,
    SYSTEMS,
    System,
    datasets_named,
    systems_named,
)
from stretchysnake.report.tables.plain_table import PlainTable
from stretchysnake.report.tables.system_table import system_table
from stretchysnake.results.rows import Row
from stretchysnake.whole_file import write_whole

DEMO = "demo/"
"""What the data sets of made weights and videos are called in rows, so that nobody takes them for the real ones."""


@dataclass(frozen=True, kw_only=True)
class Table2Run:
    """Retrieval of every system of the paper's Table 2, at its own scale, with the frames of its own test.

    Without weights or data, and with --dry-run, the plan: which file each system needs, under which name, where it is
    published, and which lists. --demo makes small files of random weights and lists of MotionDigits under out, and
    measures those: every step, and no number that says anything about a system.
    """

    weights: str | None = None
    """Folder of published files, under their published names or the system's (aim.pth)."""
    data: str | None = None
    """Folder with DATASET/train.csv and DATASET/test.csv (val.csv for ssv2), as `data list` writes them."""
    out: str = "runs/table2"
    """Folder of rows.jsonl, where the same call goes on after a stop, of table2.md and table2.csv."""
    systems: list[str] | None = None
    """Names as in the paper; null: all fifteen."""
    datasets: list[str] | None = None
    """Of ucf101, hmdb51, coin, breakfast, ssv2, diving48; null: all."""
    device: str = "auto"
    """Where the model computes: "cpu", "cuda" or e.g. "cuda:1"; "auto" means a GPU if there is one, else the CPU."""
    precision: str = "fp32"
    """"fp32", "bf16" or "int8", as in `evaluate`; the paper's numbers do not say theirs."""
    batch_size: int = 32
    num_workers: int = 2
    """Processes that decode."""
    decoder: str = "pyav"
    timeout_seconds: float = TIMEOUT_SECONDS
    feature_cache: str | None = None
    """Folder that keeps features."""
    on_error: str = "report"
    """As in `evaluate`: report, exclude or wrong."""
    memory_limit_gib: float | None = None


@dataclass(frozen=True, kw_only=True)
class Table2Result:
    """What a call measured, and what it could not."""

    table: PlainTable
    troubles: list[str]
    """Files that are there and could not be used, and cells that did not answer for all their queries."""
    missing: list[str]
    """Files that are not there, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """One cell of the table: a system on a data set, and what is there of it."""

    system: System
    dataset: str
    weights: Path | None
    gallery: Path | None
    queries: Path | None

    @property
    def absent(self) -> str:
        """Why it cannot be measured, in a word for the table; "" where it can."""
        if self.weights is None:
            return "no weights"
        return "" if self.gallery and self.queries else "no lists"


def places_of(run: Table2Run, systems: Sequence[System] = SYSTEMS) -> list[Place]:
    """The cells asked for, with what the folders hold; ValueError for unknown names or folders that are none."""
    for name in ("weights", "data"):
        folder = getattr(run, name)
        if folder is not None and not Path(folder).is_dir():
            raise ValueError(
                f"{name} ({folder}) must be a folder; leave it out to see what to put there"
            )
    places = []
    for system in systems_named(run.systems, tuple(systems)):
        weights = _first(run.weights, [*system.files, *system.own_names])
        for dataset in datasets_named(run.datasets):
            gallery = _first(run.data, [f"{dataset}/train.csv"])
            queries = _first(run.data, [f"{dataset}/{DATASETS[dataset]}.csv"])
            places.append(
                Place(
                    system=system,
                    dataset=dataset,
                    weights=weights,
                    gallery=gallery,
                    queries=queries,
                )
            )
    return places


def _first(folder: str | None, names: Sequence[str]) -> Path | None:
    found = (
        [Path(folder) / name for name in names if (Path(folder) / name).is_file()] if folder else []
    )
    return found[0] if found else None


def plan(run: Table2Run, systems: Sequence[System] = SYSTEMS) -> list[str]:
    """What is there, what is missing, where it is published and what to do, as lines."""
    places = places_of(run, systems)
    lines = ["systems (scale; frames, picture; the test of its authors) and their weights:"]
    for system in dict.fromkeys(place.system for place in places):
        weights = next(place.weights for place in places if place.system == system)
        rule = system.sampling + (f" --stride {system.stride}" if system.stride > 1 else "")
        lines.append(
            f"  {system.label}: {system.model}, {scale_of(system)} px; {rule}, {system.picture}; {system.test}"
        )
        lines.append(
            f"    there: {weights}" if weights else f"    missing: {_wanted(system, run.weights)}"
        )
        if beside := _companion(system, weights):
            lines.append(f"    missing: {beside}")
    lines.append("data sets and their lists:")
    for dataset in dict.fromkeys(place.dataset for place in places):
        place = next(place for place in places if place.dataset == dataset)
        lists = {"train": place.gallery, DATASETS[dataset]: place.queries}
        for subset, path in lists.items():
            lines.append(
                f"    there: {path}"
                if path
                else f"    missing: {_list_command(dataset, subset, run.data)}"
            )
    ready = sum(not (_blocked(place) or place.absent) for place in places)
    lines.append(f"{ready} of {len(places)} cells can be measured")
    return lines


def scale_of(system: System) -> str:
    return f"{system.num_frames} × {system.size}"


def _wanted(system: System, folder: str | None) -> str:
    own = system.own_names[0]
    names = f"{system.files[0]} or {own}" if system.files else own
    more = f" (or {', '.join(system.files[1:])})" if system.files[1:] else ""
    return f"{names}{more} in {folder or 'the folder of --weights'}; published: {system.published}"


def _companion(system: System, weights: Path | None) -> str:
    """What has to lie beside the weights, where it does not."""
    if not system.companion:
        return ""
    if weights is not None and weights.with_name(system.companion).is_file():
        return ""
    beside = system.own_names[0] if weights is None else weights.name
    return f"{system.companion} beside {beside}: CLIP's own file, published by OpenAI (github.com/openai/CLIP)"


def _blocked(place: Place) -> str:
    """Why weights that are there cannot be measured."""
    beside = _companion(place.system, place.weights)
    return f"missing: {beside}" if beside else ""


def _list_command(dataset: str, subset: str, folder: str | None) -> str:
    path = f"{folder or 'LISTS'}/{dataset}/{subset}.csv"
    name = shlex.quote(path)
    return (
        f"{path}; make it: stretchysnake data list {dataset} FOLDER --subset {subset} --out {name}"
    )


def table2(
    run: Table2Run,
    *,
    systems: Sequence[System] = SYSTEMS,
    made: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Table2Result:
    """Measure every cell whose files are there, and name those that are not.

    Cells of an earlier call are taken from rows.jsonl. A file that is not what its name says, or lists that cannot be
    used, cost their cells alone, and are named. `made`: of `demo`, whose rows are named apart.
    """
    from stretchysnake.data.decoding.video import checked_decoder

    check_on_error(run.on_error)
    checked_decoder(run.decoder)
    places = places_of(run, systems)
    measured: dict[tuple[str, str], Row] = {}
    absent = {(p.system.name, p.dataset): p.absent for p in places}
    troubles: list[str] = []
    checked: dict[Path, str] = {}
    for place in places:
        if place.absent:
            continue
        key, path = (place.system.name, place.dataset), place.weights
        if path not in checked:
            checked[path] = _blocked(place) or _trouble(place.system, path)
            if checked[path]:
                troubles.append(f"{place.system.label}: {checked[path]}")
        if checked[path]:
            absent[key] = "see below"
            continue
        try:
            measured[key] = _measured(run, place, made=made, progress=progress)
        except (ValueError, RuntimeError) as error:
            absent[key] = "see below"
            troubles.append(f"{place.system.label} on {place.dataset}: {error}")
            continue
        if run.on_error == "report" and incomplete([measured[key]]):
            answered = f"{measured[key].num_queries} of {measured[key].num_expected}"
            troubles.append(
                f"{place.system.label} on {place.dataset}: {answered} queries could be read"
            )
    note = (
        "MADE weights and MotionDigits: these numbers say nothing about any system." if made else ""
    )
    table = system_table(
        measured,
        {place.system.name: scale_of(place.system) for place in places},
        list(dict.fromkeys(place.dataset for place in places)),
        absent=absent,
        note=note,
    )
    missing = [line.strip() for line in plan(run, systems) if line.strip().startswith("missing: ")]
    lines = [*troubles, *missing]
    out = Path(run.out)
    listed = "".join(f"- {line}\n" for line in lines)
    write_whole(
        out / "table2.md",
        table.to_markdown() + (f"\nNot measured, or not whole:\n\n{listed}" if lines else ""),
    )
    write_whole(out / "table2.csv", table.to_csv())
    return Table2Result(table=table, troubles=troubles, missing=missing)


def _measured(run: Table2Run, place: Place, *, made: bool, progress: Callable | None) -> Row:
    from stretchysnake.eval.sweeps.evaluate import evaluate
    from stretchysnake.eval.sweeps.evaluate_run import EvaluateRun

    system = place.system
    told = progress and (lambda line: progress(f"{system.label}, {place.dataset}: {line}"))
    (row,) = evaluate(
        EvaluateRun(
            weights=str(place.weights),
            gallery=str(place.gallery),
            queries=str(place.queries),
            out=str(Path(run.out) / "rows.jsonl"),
            frames=[system.num_frames],
            sizes=[system.size],
            model=system.name,
            dataset=(DEMO if made else "") + place.dataset,
            picture=system.picture,
            sampling=system.sampling,
            stride=system.stride,
            decoder=run.decoder,
            device=run.device,
            precision=run.precision,
            batch_size=run.batch_size,
            num_workers=run.num_workers,
            timeout_seconds=run.timeout_seconds,
            feature_cache=run.feature_cache,
            on_error=run.on_error,
            memory_limit_gib=run.memory_limit_gib,
        ),
        progress=told,
    )
    return replace(row, dataset=place.dataset)


def _trouble(system: System, path: Path) -> str:
    """Why a file is not this system's weights; "" where it is."""
    from stretchysnake.models.weights.loading import load_model

    try:
        found = load_model(path)[0].config
    except (ValueError, RuntimeError) as error:
        return str(error)
    wanted = system.config()
    for name in ("architecture", "embed_dim", "embed_dims", "depth", "depths"):
        has, must = getattr(found, name, None), getattr(wanted, name, None)
        if has != must:
            return (
                f"weights ({path}) hold a model of {name} {has}, and {system.model} has {must}; "
                f"the file must be: {system.published}"
            )
    return ""
