"""What every recipe on MotionDigits does: open its suites, train a nano model, tell what the page says of both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

from stretchysnake.flexibility import NANO, eval_scale, sets_around, variant_named
from stretchysnake.models.architectures import config_named
from stretchysnake.train.run import OptimConfig, TrainRun

PREFIX = "motion-digits/"
"""A suite's name in rows is this and the suite."""
MODEL = "videomamba-nano"
"""What the quickstart and the study train."""
SUITES = {"short": 10, "fine": 8, "long": 24}
"""Those that may be measured, with their numbers of classes; data/motion_digits.py, which says so, imports torch."""


def check_asked(run, methods: str, *, least_source: int = 1) -> None:
    """ValueError for what no quickstart or study can measure, before videos are made; `methods` names that field."""
    for name in (methods, "seeds", "suites", "frames", "sizes"):
        values = getattr(run, name)
        if not values or len(set(values)) < len(values):
            raise ValueError(
                f"{name} ({', '.join(map(str, values))}) must hold one or more, each once"
            )
    for suite in run.suites:
        if suite not in SUITES:
            raise ValueError(f"suites ({suite}) must be of: {', '.join(SUITES)}")
    at_least = {"steps": 1, "batch_size": 1, "data_seed": 0}
    at_least |= {"source_clips": least_source, "query_clips": 1}
    at_least["gallery_clips"] = max(SUITES[suite] for suite in run.suites)  # one of each class
    for name, least in at_least.items():
        if getattr(run, name) < least:
            raise ValueError(f"{name} ({getattr(run, name)}) must be at least {least}")
    for variant in map(variant_named, getattr(run, methods)):
        for num_frames, size in product(run.frames, run.sizes):
            scale = eval_scale(variant.using(NANO), num_frames=num_frames, size=size)
            if scale.num_frames > TrainRun.cache_frames or scale.size > TrainRun.cache_size:
                raise ValueError(
                    f"frames ({num_frames}) and sizes ({size}) must be at most {TrainRun.cache_frames} and "
                    f"{TrainRun.cache_size}, which is what the videos are decoded to"
                )


@dataclass(frozen=True, kw_only=True)
class Suites:
    """The videos of a run: their lists, and (gallery, queries) of each suite decoded once.

    Pickled it is the place where they lie, and opened again by the process that reads it.
    """

    folder: Path
    lists: Mapping[str, tuple[Path, Path]]
    clips: Mapping[str, tuple]

    @property
    def cache(self) -> str:
        return _cache(self.folder)

    @property
    def source(self) -> str:
        """List of the training videos."""
        return str(self.lists["source"][0])

    def __reduce__(self):
        return open_suites, (self.folder, self.lists, tuple(self.clips))

    @cached_property
    def source_key(self) -> str:
        """8 hex digits of the list of training videos: places inside the folder, classes and actors."""
        from stretchysnake.data.records import read_records
        from stretchysnake.data.records_key import records_key

        return records_key(read_records(self.source), files=False)[:8]

    @cached_property
    def source_clips(self) -> tuple:
        """The training videos and those held out of them, as a gallery and its queries."""
        return tuple(_open(csv, self.cache) for csv in self.lists["source"])

    def open(self, suite: str, *, from_files: bool = False) -> tuple:
        """(gallery, queries) of a suite, or of "source"; from the files where the frame cache holds too little."""
        if from_files:
            return tuple(_from_files(csv) for csv in self.lists[suite])
        if suite not in self.clips:
            return self.source_clips
        return self.clips[suite]

    def hold(self, row) -> bool:
        """Whether the row was measured on these videos, not on more or fewer of an earlier run."""
        suite = row.dataset.removeprefix(PREFIX)
        if suite not in (*self.clips, "source"):
            return False
        gallery, queries = self.open(suite)
        expected = len(queries.records) + len(queries.failures)
        # leave-one-out inside the gallery asks the gallery's own videos
        if row.metric == "gallery_top1":
            expected = len(gallery.records) + len(gallery.failures)
        return (row.num_gallery, row.num_expected) == (len(gallery.records), expected)


def make_suites(
    run, watch, *, source_test: int = 0, progress: Callable[[str], None] | None = None
) -> Suites:
    """The videos of a quickstart or study, made and decoded once; its Stopwatch `watch` notes how long each took.

    `source_test` are the clips held out of the classes that are trained on."""
    from stretchysnake.data.motion_digits import MotionDigitsSizes, generate

    data = Path(run.data) if run.data else Path(run.out) / "motion-digits"
    sizes = MotionDigitsSizes(
        source=run.source_clips,
        source_test=source_test,
        gallery=run.gallery_clips,
        query=run.query_clips,
    )
    lists = generate(data, sizes=sizes, seed=run.data_seed, progress=progress)
    watch.lap("make the videos")
    suites = open_suites(data, lists, run.suites, progress=progress)
    if run.source_clips:  # none where nothing is trained
        _open(suites.lists["source"][0], suites.cache, progress=progress)
    watch.lap("decode them once")
    return suites


def open_suites(
    folder: Path,
    lists: Mapping[str, tuple[Path, Path]],
    names: Sequence[str],
    *,
    progress: Callable[[str], None] | None = None,
) -> Suites:
    """The suites of these names, from the frame cache beside the videos."""
    options = {"cache": _cache(folder), "progress": progress}
    opened = {name: tuple(_open(csv, **options) for csv in lists[name]) for name in names}
    return Suites(folder=folder, lists=lists, clips=opened)


def _from_files(csv: Path):
    """In this process: the recipe made these files itself, and processes of a decoder are for those of others."""
    from stretchysnake.data.clips.loader import DecodingLimits

    return _open(csv, None, picture="whole", limits=DecodingLimits(num_workers=0))


def _open(csv: Path, cache: str | None, **options):
    from stretchysnake.data.clips.loader import open_clips
    from stretchysnake.data.records import read_records

    return open_clips(read_records(csv), cache=cache, **options)


def _cache(folder: Path) -> str:
    return str(folder / "frame-cache")


def nano_run(
    method: str,
    seed: int,
    *,
    out: str | Path,
    data: str | Path,
    cache: str,
    steps: int,
    batch_size: int,
    optim: OptimConfig,
    num_frames: int | None = None,
    model_name: str = MODEL,
    device: str = "auto",
) -> TrainRun:
    """The training of one method and seed; methods differ in `variant` alone. `num_frames` is vanilla's other T."""
    model = config_named(model_name, num_classes=0)
    sets = sets_around(model.native)
    if num_frames is not None and num_frames != sets.native.num_frames:
        sets = replace(sets, native=replace(sets.native, num_frames=num_frames))
        model = replace(model, num_frames=num_frames)
    return TrainRun(
        data=str(data),
        out=str(out),
        variant=method,
        sets=sets,
        model=model,
        optim=optim,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        cache=cache,
        device=device,
    )


def suite_infos(suites: Suites, *, out: Path) -> list:
    """What the page tells of each suite; writes a contact sheet of each into `out`."""
    from stretchysnake.data import motion_digits
    from stretchysnake.data.records import read_records

    infos = []
    for suite in suites.clips:
        sheet = out / f"{suite}.png"
        labels = motion_digits.contact_sheet(suites.folder, suite, sheet)
        samples = read_records(suites.lists[suite][1])[:6]
        infos.append(
            replace(
                suite_info(suite),
                contact_sheet_png=sheet,
                labels=labels,
                sample_clips=[record.path for record in samples],
                sample_labels=[record.class_name for record in samples],
            )
        )
    return infos


def suite_info(suite: str):
    """What is known of a suite without its videos."""
    from stretchysnake.data import motion_digits
    from stretchysnake.report.pages.context import SuiteInfo

    info = motion_digits.info(suite)
    return SuiteInfo(
        name=suite,
        dataset=PREFIX + suite,
        description=info["description"],
        num_classes=len(info["classes"]),
        chance=info["chance"],
    )


def training_info(run: TrainRun, result, *, model: str | None = None):
    """What the page tells of a training; `model` where it is another name than the variant's."""
    from stretchysnake.models.weights.files import read_checkpoint
    from stretchysnake.report.pages.context import TrainingInfo

    state, _ = read_checkpoint(result.weights)
    return TrainingInfo(
        model=model or run.variant,
        seed=run.seed,
        steps=run.steps,
        seconds=result.seconds,
        clips=result.clips,
        tokens=result.tokens,
        final_loss=result.final_loss,
        loss_curve=result.losses[:: max(1, len(result.losses) // 300)],
        parameters=sum(tensor.numel() for tensor in state.values()),
        scales=_scales_in_words(run),
    )


def _scales_in_words(run: TrainRun) -> str:
    seen = {scale for step in range(min(run.steps, 500)) for scale in run.scales_of(step)}
    frames = sorted({scale.num_frames for scale in seen})
    sizes = sorted({scale.size for scale in seen})
    patches = sorted({scale.patch_size for scale in seen})
    return f"T {_listed(frames)}, S {_listed(sizes)} px, P {_listed(patches)} px"


def _listed(values: list[int]) -> str:
    return ", ".join(str(value) for value in values)
