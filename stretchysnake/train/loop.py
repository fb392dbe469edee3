"""The training loop: batches of one scale each in, weights out (paper §4.1).

result = train(run)    # goes on from the last checkpoint in run.out, or starts; writes weights.safetensors, run.json
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from stretchysnake.data.bad_clips import joined_summaries
from stretchysnake.data.loader import (
    Batch,
    DecodingLimits,
    batch_size_at,
    open_clips,
    training_batches,
    training_steps,
)
from stretchysnake.data.records import read_records
from stretchysnake.flexibility import scale_at
from stretchysnake.models.checkpoints import load_weights, read_checkpoint
from stretchysnake.models.videomamba import VideoMamba
from stretchysnake.train.checkpoint import newest_good, read_state
from stretchysnake.train.identity import key_in, refuse_unequal_records
from stretchysnake.train.interrupt import StopRequest, TrainingInterrupted, stop_signals
from stretchysnake.train.memory import is_out_of_memory, out_of_memory_message
from stretchysnake.train.meter import Meter, Progress
from stretchysnake.train.nonfinite import describe
from stretchysnake.train.optim import lr_at
from stretchysnake.train.outputs import (
    RunLog,
    TrainResult,
    finished_run,
    result_of,
    weights_metadata,
    write_finished,
    write_started,
)
from stretchysnake.train.run import TrainRun
from stretchysnake.train.runtime import SINGLE, Runtime
from stretchysnake.train.saving import Saver
from stretchysnake.train.state import TrainState, new_state, restore_state, whole_weights
from stretchysnake.train.step import take_step
from stretchysnake.train.tensorboard import Board, open_board


def train(
    run: TrainRun, *, progress: Progress | None = None, runtime: Runtime = SINGLE
) -> TrainResult:
    """Train as the run says, from the newest good checkpoint in run.out where there is one.

    A finished run of the same settings and data (identity.py) is returned as it is. ValueError when run.out holds
    another run, which is never overwritten; TrainingInterrupted after SIGTERM or Ctrl-C, with a checkpoint written.
    """
    out = Path(run.out)
    records = read_records(run.data)
    key, notes = key_in(out, run, records)
    key = runtime.from_first(key)  # times of change may differ where machines have copies
    for note in notes:
        _say(note, runtime)
    done = finished_run(out, key)
    if done is not None:
        return done
    classes = _num_classes(run, 1 + max(record.label for record in records))
    device = runtime.device(run.device)
    board = open_board(out / "tensorboard") if run.tensorboard and runtime.is_first else None
    with runtime.first_goes_first():
        clips = open_clips(
            records,
            cache=run.cache,
            num_frames=run.cache_frames,
            size=run.cache_size,
            augmentation=run.augmentation,
            on_error=run.on_error,
            limits=DecodingLimits(num_workers=run.num_workers),
            progress=progress,
        )
    refuse_unequal_records([clips], runtime)
    torch.manual_seed(run.seed)
    model = VideoMamba(replace(run.model, num_classes=classes))
    if run.weights is not None:
        for note in load_weights(model, read_checkpoint(run.weights)[0]):
            _say(f"{run.weights}: {note}", runtime)
    if run.precision == "fp64":
        model.double()
    state = new_state(model.to(device), run, runtime=runtime)
    if runtime.is_first:
        write_started(out, run, key, records)
    log = RunLog(out / "log.jsonl" if runtime.is_first else None)
    metadata = weights_metadata(run, key, records, classes)
    saver = Saver(out / "checkpoints", run, metadata=metadata, key=key, log=log)
    _restore_newest(state, saver, run, runtime=runtime)
    steps = total_steps(run, len(clips))
    options = {
        "variant": run.bound_variant,
        "batch_size": run.batch_size,
        "seed": run.seed,
        "steps": steps,
        "token_budget": run.token_budget,
        "shuffle": run.shuffle,
    }
    ranks = {"rank": runtime.rank, "world_size": runtime.world_size}

    def files_of(step: int) -> list[str]:
        drawn = next(training_steps(len(clips), start_step=step, **options))
        return [str(clips.records[index].path) for index in drawn.indices]

    with stop_signals() as request:
        fit(
            state,
            lambda start: training_batches(clips, start_step=start, **options, **ranks),
            run,
            steps=steps,
            files_of=files_of,
            saver=saver,
            request=request,
            progress=progress,
            board=board,
            runtime=runtime,
        )
    weights = whole_weights(state.model.state_dict())
    average = None if state.average is None else whole_weights(state.average)
    bad = joined_summaries(
        [json.loads(text) for text in runtime.gather(json.dumps(clips.bad.summary))]
    )
    if not runtime.is_first:
        return result_of(out, state)
    data = {
        "num_records": len(clips.records),
        "num_records_listed": len(records),
        "bad_files": {"left_out": [str(error) for _, error in clips.failures], **bad},
    }
    held = {"metadata": metadata, "weights": weights, "average": average}
    return write_finished(out, run, key, state, **held, data=data)


def fit(
    state: TrainState,
    batches_from: Callable[[int], Iterable[Batch]],
    run: TrainRun,
    *,
    steps: int | None = None,
    files_of: Callable[[int], Sequence[str]] = lambda step: (),
    saver: Saver | None = None,
    request: StopRequest | None = None,
    progress: Progress | None = None,
    board: Board | None = None,
    runtime: Runtime = SINGLE,
) -> TrainState:
    """Take the steps from state.step to `steps` (default run.steps); `batches_from(k)` yields step k and what follows.

    A step whose loss or gradient is not finite is skipped, and told with files, scale and layer; after
    `non_finite.patience` in a row the state returns to the last good checkpoint with a lower learning rate, or
    RuntimeError ends the run, as configured.
    """
    steps = run.steps if steps is None else steps
    state.model.train(run.trainable == "all")  # a probe's backbone draws no drop path
    state.model.checkpoint_activations = run.activation_checkpointing
    model = runtime.parallel(state.model, next(state.model.parameters()).device)
    meter = Meter(state, run, steps, progress, board=board)

    def ask(step: int) -> tuple[bool, bool]:
        due = saver is not None and runtime.is_first and saver.is_due(step)
        return request is not None and request.number != 0, due

    while state.step < steps:
        waiting = time.perf_counter()
        for batch in batches_from(state.step):
            started = time.perf_counter()
            lr = lr_at(run.optim, step=batch.step, steps=steps) * state.lr_factor
            try:
                outcome = take_step(
                    state,
                    model,
                    batch,
                    run,
                    lr=lr,
                    runtime=runtime,
                    ask=partial(ask, batch.step + 1),
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    _explain_compiling(error, run)
                    raise
                message = out_of_memory_message(state, batch, run, runtime=runtime)
                raise RuntimeError(message) from None
            state.step = batch.step + 1
            state.seconds += time.perf_counter() - waiting
            if not outcome.clips:
                _say(f"step {batch.step} left out: none of its clips can be decoded", runtime)
            elif outcome.is_finite:
                state.bad_in_a_row = 0
                meter(batch, outcome, lr=lr, waited=started - waiting, log=saver and saver.log)
            elif outcome.overflow:
                if saver:
                    saver.log("overflow", step=batch.step, loss_scale=state.loss_scale)
            else:
                state.bad_in_a_row += 1
                files = files_of(batch.step)
                trouble = describe(state, batch, outcome, run, runtime=runtime, files=files)
                trouble = "; ".join(dict.fromkeys(runtime.gather(trouble)))
                _say(f"skipped {trouble}; weights unchanged", runtime)
                if saver:
                    saver.log("skipped", step=batch.step, reason=trouble)
                if state.bad_in_a_row >= run.non_finite.patience:
                    _go_back(state, saver, run, trouble, runtime=runtime)
                    break
            if saver:
                stop = outcome.stop and state.step < steps
                if stop or (outcome.save and not state.bad_in_a_row):
                    saver.save(state, runtime=runtime)
                if stop:
                    raise _interrupted(state, run, steps, request)
            waiting = time.perf_counter()
        else:
            break
    state.model.eval()
    return state


def _explain_compiling(error: BaseException, run: TrainRun) -> None:
    if run.compile and isinstance(error, torch._dynamo.exc.TorchDynamoException):
        raise RuntimeError(
            f"compile (true) failed: {str(error).strip().splitlines()[0]}; on the CPU it needs a C++ compiler. "
            "Set compile to false to train without"
        ) from None


def total_steps(run: TrainRun, num_clips: int) -> int:
    """run.steps, or as many as run.epochs passes over the clips take at the batch sizes the run will draw."""
    if run.epochs is None:
        return run.steps
    wanted = math.ceil(run.epochs * num_clips)
    if run.token_budget is None:
        return math.ceil(wanted / run.batch_size)
    step = seen = 0
    while seen < wanted:
        scale = scale_at(run.bound_variant, seed=run.seed, step=step)
        seen += batch_size_at(scale, batch_size=run.batch_size, token_budget=run.token_budget)
        step += 1
    return step


def _num_classes(run: TrainRun, in_data: int) -> int:
    if run.model.num_classes == 0:
        return in_data
    if run.model.num_classes < in_data:
        raise ValueError(
            f"model.num_classes ({run.model.num_classes}) must cover the data's labels 0..{in_data - 1}; "
            f"use {in_data}, or 0 to take it from the data"
        )
    return run.model.num_classes


def _restore_newest(
    state: TrainState, saver: Saver, run: TrainRun, *, runtime: Runtime
) -> Path | None:
    path = None
    if runtime.is_first:
        path = newest_good(
            saver.folder, on_damaged=run.on_damaged, say=lambda text: _say(text, runtime)
        )
    name = runtime.from_first(path.name if path else None)
    if name is None:
        return None
    if (found := read_state(saver.folder / name).get("digest")) != saver.key:
        raise ValueError(
            f"checkpoint {name} in {saver.folder} is of another run (digest {found}, this one is {saver.key}); "
            "choose another folder"
        )
    restore_state(state, saver.folder / name)
    saver.restored(state)
    _say(f"going on from {saver.folder / name}, step {state.step}", runtime)
    saver.log("resumed", step=state.step)
    return saver.folder / name


def _go_back(
    state: TrainState, saver: Saver | None, run: TrainRun, trouble: str, *, runtime: Runtime
) -> None:
    config, factor, rollbacks = run.non_finite, state.lr_factor, state.rollbacks
    ending = (
        f"{config.patience} steps in a row were not finite; the last: {trouble}. "
        "Try a lower optim.lr or precision fp32, or look at the files named"
    )
    if config.then == "stop" or saver is None:
        raise RuntimeError(ending)
    if rollbacks >= config.max_rollbacks:
        raise RuntimeError(f"{ending} (went back {rollbacks} times, non_finite.max_rollbacks)")
    if _restore_newest(state, saver, run, runtime=runtime) is None:
        raise RuntimeError(f"{ending} (there is no checkpoint yet to go back to)")
    state.lr_factor, state.rollbacks = factor * config.lr_factor, rollbacks + 1
    state.bad_in_a_row = 0
    _say(f"learning rate times {state.lr_factor:g} from here on", runtime)
    saver.log("rollback", step=state.step, lr_factor=state.lr_factor)


def _interrupted(
    state: TrainState, run: TrainRun, steps: int, request: StopRequest | None
) -> TrainingInterrupted:
    return TrainingInterrupted(
        f"stopped after step {state.step} of {steps}; a checkpoint is written. "
        f"Go on with the same command, or: stretchysnake train --resume {run.out}",
        (request.number if request else 0) or 15,
    )


def _say(text: str, runtime: Runtime) -> None:
    if runtime.is_first:
        print(text, file=sys.stderr, flush=True)
