"""What the study trains, as data: a Condition is one way of training, a Training one seed of it.

To add one: a Condition in `conditions`, and where its rows have a name of its own, that name in CONDITIONS of
report/tables/cells.py, by which the page knows that it is no method of Table 1.
"""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from stretchysnake.flexibility import NANO
from stretchysnake.recipes.motion_digits import MODEL, nano_run
from stretchysnake.recipes.study.design import (
    COMPARED,
    EQUAL_TOKENS,
    PARTS,
    RATES,
    TRANSFERRED,
    StudyRun,
)
from stretchysnake.recipes.transfer import finetune_nano
from stretchysnake.report.tables.cells import (
    EQUAL_TOKENS_MODEL,
    PI_MODEL,
    SCRATCH_MODEL,
    groups_model,
)
from stretchysnake.train.run import TrainRun


class Condition(NamedTuple):
    """One way of training: in what it differs from vanilla's run. Seeds apart, all see the same clips in order."""

    part: str
    """Which of design.PARTS it belongs to."""
    method: str
    """Its variant."""
    own_name: str = ""
    """What its rows call it, where that is not the method (and peer)."""
    peer: str = ""
    """The model's name where it is not the study's own."""
    num_frames: int = NANO.native.num_frames
    """Native T: vanilla's own training length."""
    scales_per_step: int = 1
    patch_resize: str = "bicubic"
    sizes: tuple[int, ...] = NANO.sizes
    """What S is drawn from."""
    scratch: bool = False
    """From scratch, for as many steps as the vanilla that the others go on from and their own."""

    @property
    def row_model(self) -> str:
        """What its rows call it."""
        if self.own_name:
            return self.own_name
        return f"{self.peer} {self.method}" if self.peer else self.method

    @property
    def shown(self) -> str:
        """Its name on the page and for `only`, which tells a vanilla of another T."""
        own = self.num_frames == NANO.native.num_frames
        return self.row_model if own else f"{self.row_model} T={self.num_frames}"

    @property
    def folder(self) -> str:
        """The beginning of its trainings' folders."""
        name = self.own_name or self.method
        if self.num_frames != NANO.native.num_frames:
            name = f"{name}-T{self.num_frames}"
        return f"{self.peer}-{name}" if self.peer else name.replace(" ", "-").replace("=", "")

    @property
    def is_main(self) -> bool:
        """Whether it is a method of Table 1 and Fig. 3: measured by every protocol."""
        return self.part in ("main", "variants")


def conditions(study: StudyRun) -> list[Condition]:
    """All of them, what matters most first (the order of PARTS); ValueError for a word of `only`, or a condition of
    `rates`, that is none."""
    home = NANO.native.num_frames
    found = [Condition("main", method) for method in COMPARED]
    found += [Condition("variants", m) for m in study.variants if m not in COMPARED]
    found += [
        Condition("groups", "static_tokens", groups_model(k), scales_per_step=k)
        for k in study.scales_per_step
    ]
    if study.start_steps:
        # Paper does not compare with a run from scratch; as many steps as both trainings have is equal budget.
        found.append(Condition("scratch", "static_tokens", SCRATCH_MODEL, scratch=True))
    found += [
        Condition("reasons", "static_tokens", PI_MODEL, patch_resize="pi"),
        Condition("reasons", "static_patch", EQUAL_TOKENS_MODEL, sizes=EQUAL_TOKENS),
    ]
    found += [Condition("peers", method, peer=peer) for peer in study.peers for method in COMPARED]
    found += [Condition("lengths", "vanilla", num_frames=t) for t in study.frames if t != home]
    shown = [condition.shown for condition in found]
    _check("only", study.only, [*PARTS, *shown])
    _check("rates", [name for name in study.rates if name not in RATES], shown)
    order = list(PARTS)
    return sorted(found, key=lambda condition: order.index(condition.part))


def _check(name: str, words: Iterable[str], known: list[str]) -> None:
    for word in words:
        if word not in known:
            near = difflib.get_close_matches(word, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(
                f"{name} ({word}) is not in this study{hint}; it has: {', '.join(known)}"
            )


class Training(NamedTuple):
    """One pre-training of the study."""

    condition: Condition
    seed: int
    run: TrainRun
    start: TrainRun | None = None
    """What has to be trained before, where the run goes on from weights: the same for all of a seed and peer."""

    @property
    def method(self) -> str:
        return self.condition.method

    @property
    def peer(self) -> str:
        return self.condition.peer

    @property
    def num_frames(self) -> int:
        return self.condition.num_frames

    @property
    def is_main(self) -> bool:
        return self.condition.is_main

    @property
    def row_model(self) -> str:
        return self.condition.row_model

    @property
    def shown(self) -> str:
        return self.condition.shown

    @property
    def num_steps(self) -> int:
        """Of all that made its weights."""
        return self.run.steps + (self.start.steps if self.start else 0)

    @property
    def is_finished(self) -> bool:
        """Whether its folder holds a finished run."""
        return is_finished(self.run)


def is_finished(run: TrainRun) -> bool:
    """Whether the run's folder holds it finished."""
    return (Path(run.out) / "run.json").is_file()


def trainings(study: StudyRun, *, data: str, cache: str) -> Iterator[Training]:
    """Every pre-training: part after part, in each seed after seed."""
    listed = conditions(study)
    for part in PARTS:
        for seed in study.seeds:
            for condition in listed:
                if condition.part == part:
                    yield _training(study, condition, seed, data=data, cache=cache)


def _training(
    study: StudyRun, condition: Condition, seed: int, *, data: str, cache: str
) -> Training:
    model = condition.peer or MODEL

    def run_of(
        method: str,
        name: str,
        steps: int,
        num_frames: int = condition.num_frames,
        shown: str = condition.shown,
    ) -> TrainRun:
        return nano_run(
            method,
            seed,
            out=Path(study.out) / f"{name}-seed{seed}-{steps}",
            data=data,
            cache=cache,
            steps=steps,
            batch_size=study.batch_size,
            optim=replace(study.optim, lr=study.rates.get(shown, study.optim.lr)),
            num_frames=num_frames,
            model_name=model,
            device=study.device,
        )

    if condition.scratch:
        steps = study.start_steps + study.steps
        return Training(condition, seed, run_of(condition.method, condition.folder, steps))
    run = run_of(condition.method, condition.folder, study.steps)
    if condition.scales_per_step > 1:
        run = replace(run, scales_per_step=condition.scales_per_step)
    if condition.patch_resize != "bicubic":
        run = replace(run, model=replace(run.model, patch_resize=condition.patch_resize))
    if condition.sizes != NANO.sizes:
        run = replace(run, sets=replace(run.sets, sizes=condition.sizes))
    if not study.start_steps:
        return Training(condition, seed, run)
    name = f"{condition.peer}-start" if condition.peer else "start"
    vanilla = Condition("main", "vanilla", peer=condition.peer)
    # at that vanilla's rate, as all of a seed and peer go on from it
    start = run_of("vanilla", name, study.start_steps, NANO.native.num_frames, shown=vanilla.shown)
    run = replace(run, weights=str(Path(start.out) / "weights.safetensors"))
    return Training(condition, seed, run, start)


def is_tuned(study: StudyRun, condition: Condition) -> bool:
    """Whether its models are fine-tuned on each suite."""
    return bool(study.finetune_steps) and condition.is_main and condition.method in TRANSFERRED


def transfers(
    study: StudyRun, suite: str, training: Training, *, weights: str, data: str, cache: str
) -> Iterator[tuple[str, TrainRun]]:
    """(protocol, training) of fine-tuning, and of the SGD probe where asked for, on a suite's gallery."""
    if not is_tuned(study, training.condition):
        return
    done = f"{training.method}-seed{training.seed}-{study.steps}-{study.finetune_steps}"
    for protocol, trainable in (("finetune", "all"), ("probe-sgd", "head")):
        if trainable == "all" or study.sgd_probe:
            run = finetune_nano(
                weights=weights,
                data=data,
                out=str(Path(study.out) / f"{protocol}-{suite}-{done}"),
                cache=cache,
                steps=study.finetune_steps,
                batch_size=study.batch_size,
                seed=training.seed,
                trainable=trainable,
                device=study.device,
            )
            yield protocol, run
