"""The training loop: batches of one scale each in, weights out (paper §4.1).

result = train(run)    # goes on from the last checkpoint in run.out, or starts; writes weights.safetensors, run.json
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from stretchysnake.data.clips.loader import (
    Batch,
    DecodingLimits,
    MixedBatch,
    training_batches,
    training_steps,
)
from stretchysnake.data.clips.open_clips import open_training_clips
from stretchysnake.data.processes.nursery import nursery
from stretchysnake.data.records_key import file_stamps, refuse_unequal_records
from stretchysnake.models.architectures import build_model
from stretchysnake.models.backbone import pixels_of
from stretchysnake.models.weights.loading import start_from
from stretchysnake.ops.out_of_memory import is_out_of_memory
from stretchysnake.ranks import SINGLE, Runtime
from stretchysnake.shown import first_line
from stretchysnake.train.checkpoints.identity import agreed_key
from stretchysnake.train.checkpoints.outputs import (
    RunLog,
    TrainResult,
    finished_run,
    result_of,
    weights_metadata,
    write_finished,
    write_started,
)
from stretchysnake.train.checkpoints.restoring import go_back, restore_first
from stretchysnake.train.checkpoints.saving import Saver
from stretchysnake.train.checkpoints.state import TrainState, new_state, whole_weights
from stretchysnake.train.interrupt import StopRequest, TrainingInterrupted, stop_signals
from stretchysnake.train.labels import labelled_records
from stretchysnake.train.optim import lr_at
from stretchysnake.train.parallel_model import averaging
from stretchysnake.train.run import TrainRun
from stretchysnake.train.schedule import check_drawn_scales, total_steps
from stretchysnake.train.step import take_step
from stretchysnake.train.watch.bad_files import BadFileWatch
from stretchysnake.train.watch.held_out import BEST, HeldOut, open_held_out
from stretchysnake.train.watch.memory import out_of_memory_message
from stretchysnake.train.watch.meter import Meter, Progress
from stretchysnake.train.watch.nonfinite import describe
from stretchysnake.train.watch.tensorboard import Board, open_board


@nursery()
def train(
    run: TrainRun, *, progress: Progress | None = None, runtime: Runtime = SINGLE
) -> TrainResult:
    """Train as the run says, from the newest good checkpoint in run.out where there is one.

    A finished run of the same settings and data (identity.py) is returned as it is. ValueError when run.out holds
    another run, which is never overwritten; TrainingInterrupted after SIGTERM or Ctrl-C, with a checkpoint written.
    Decoders are forked from a small process that is forked at the start, or by the caller before a GPU and other ranks
    are in use (nursery.py).
    """
    out = Path(run.out)
    classes = labelled_records(run)
    records = classes.records
    # once: on a disk of the network each of 240,000 answers counts
    stamps = file_stamps(records) if runtime.local_rank == 0 else None
    key, notes = agreed_key(out, run, records, stamps=stamps, runtime=runtime)
    for note in notes:
        runtime.say(note)
    done = finished_run(out, key)
    if done is not None:
        if run.held_out is not None and not (out / BEST).is_file():
            runtime.say(
                f"out ({out}) holds this run, finished without held_out ({run.held_out}): it was not measured; "
                "measure its weights with stretchysnake evaluate"
            )
        return done
    for note in classes.notes:
        runtime.say(f"{run.data}: {note}")
    steps = total_steps(run, len(records))
    check_drawn_scales(run, steps)
    device = runtime.device(run.device)
    board = open_board(out / "tensorboard") if run.tensorboard and runtime.is_first else None
    with runtime.first_goes_first(run.cache) if run.cache else nullcontext():
        clips = open_training_clips(
            records,
            cache=run.cache,
            num_frames=run.cache_frames,
            size=run.cache_size,
            augmentation=run.augmentation,
            decoder=run.decoder,
            fit=run.fit,
            on_error=run.on_error,
            limits=DecodingLimits(num_workers=run.num_workers, timeout_seconds=run.timeout_seconds),
            verify_cache=run.verify_cache,
            check_first=run.check_first,
            progress=progress,
            runtime=runtime,
        )
        held_out = open_held_out(run, records, progress=progress) if run.held_out else None
    refuse_unequal_records([clips], runtime, stamps=stamps)
    torch.manual_seed(run.seed)
    model = build_model(replace(run.model, num_classes=len(classes.names)))
    if run.weights is not None:
        for note in start_from(run.weights, model):
            runtime.say(f"{run.weights}: {note}")
    if run.precision == "fp64":
        model.double()
    state = new_state(model.to(device), run, runtime=runtime)
    if runtime.is_first:
        write_started(out, run, key, records, stamps=stamps)
    log = RunLog(out / "log.jsonl" if runtime.is_first else None)
    metadata = weights_metadata(run, key, classes.names)
    saver = Saver(out / "checkpoints", run, metadata=metadata, key=key, log=log)
    restore_first(state, saver, run, clips, runtime=runtime)
    told = {"metadata": metadata, "log": log, "runtime": runtime}
    measure = None if held_out is None else HeldOut(held_out, run, **told)
    options = {
        "variant": run.bound_variant,
        "batch_size": run.batch_size,
        "num_sample": run.num_sample,
        "seed": run.seed,
        "steps": steps,
        "token_budget": run.token_budget,
        "shuffle": run.shuffle,
        "scales_per_step": run.scales_per_step,
        "scale_draw": run.scale_draw,
    }
    ranks = {"rank": runtime.rank, "world_size": runtime.world_size}
    pixels = pixels_of(model.config)

    def files_of(step: int) -> list[str]:
        drawn = next(training_steps(len(clips), start_step=step, unit=run.unit, **options))
        return [str(clips.records[index].path) for index in drawn.indices]

    with stop_signals() as request:
        fit(
            state,
            lambda start: training_batches(
                clips, start_step=start, pixels=pixels, device=device, **options, **ranks
            ),
            run,
            steps=steps,
            files_of=files_of,
            saver=saver,
            held_out=measure,
            request=request,
            progress=progress,
            board=board,
            runtime=runtime,
        )
    weights = whole_weights(state.model.state_dict())
    average = None if state.average is None else whole_weights(state.average)
    if not runtime.is_first:
        return result_of(out, state)
    data = {
        "num_records": len(records) - len(state.bad_files),
        "num_records_listed": len(records),
        "bad_files": {
            "on_error": run.on_error,
            "replaced": state.replaced,
            "skipped": state.left_out,
            "files": sorted(str(file.error) for file in state.bad_files.values()),
        },
    }
    if measure is not None:
        data["held_out"] = measure.summary(state)
    held = {"metadata": metadata, "weights": weights, "average": average}
    return write_finished(out, run, key, state, **held, data=data)


def fit(
    state: TrainState,
    batches_from: Callable[[int], Iterable[Batch | MixedBatch]],
    run: TrainRun,
    *,
    steps: int | None = None,
    files_of: Callable[[int], Sequence[str]] = lambda step: (),
    saver: Saver | None = None,
    held_out: HeldOut | None = None,
    request: StopRequest | None = None,
    progress: Progress | None = None,
    board: Board | None = None,
    runtime: Runtime = SINGLE,
) -> TrainState:
    """Take the steps from state.step to `steps` (default run.steps); `batches_from(k)` yields step k and what follows.

    A step whose loss or gradient is not finite is skipped, and told with files, scale and layer; after
    `non_finite.patience` in a row the state returns to the last good checkpoint with a lower learning rate, or
    RuntimeError ends the run, as configured. TooManyBadFiles ends it too, with a checkpoint written.
    """
    steps = run.steps if steps is None else steps
    state.model.train(run.trainable == "all")  # a probe's backbone draws no drop path
    state.model.checkpoint_activations = run.activation_checkpointing
    model = averaging(state.model, next(state.model.parameters()).device, runtime)
    meter = Meter(state, run, steps, progress, board=board)
    watch = BadFileWatch(state, run, log=saver and saver.log, runtime=runtime)
    if held_out is not None and held_out.is_due(state, steps):  # a stop came first
        held_out(state)

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
            watch(batch, outcome)
            if not outcome.clips:
                runtime.say(f"step {batch.step} left out: none of its clips can be decoded")
            elif outcome.is_finite:
                state.bad_in_a_row = 0
                told = {"waited": started - waiting, "bad_share": watch.share}
                meter(batch, outcome, lr=lr, log=saver and saver.log, **told)
            elif outcome.overflow:
                if saver:
                    saver.log("overflow", step=batch.step, loss_scale=state.loss_scale)
            else:
                state.bad_in_a_row += 1
                files = files_of(batch.step)
                trouble = describe(state, batch, outcome, run, runtime=runtime, files=files)
                trouble = "; ".join(dict.fromkeys(runtime.gather(trouble)))
                runtime.say(f"skipped {trouble}; weights unchanged")
                if saver:
                    saver.log("skipped", step=batch.step, reason=trouble)
                if state.bad_in_a_row >= run.non_finite.patience:
                    go_back(state, saver, run, trouble, runtime=runtime)
                    break
            stop = outcome.stop and state.step < steps
            if held_out is not None and not stop and held_out.is_due(state, steps):
                held_out(state)
            if watch.is_too_much():
                if saver and not state.bad_in_a_row:
                    saver.save(state, runtime=runtime)
                raise watch.error()
            if saver:
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
            f"compile (true) failed: {first_line(error)}; on the CPU it needs a C++ compiler. "
            "Set compile to false to train without"
        ) from None


def _interrupted(
    state: TrainState, run: TrainRun, steps: int, request: StopRequest | None
) -> TrainingInterrupted:
    return TrainingInterrupted(
        f"stopped after step {state.step} of {steps}; a checkpoint is written. "
        f"Go on with the same command, or: stretchysnake train --resume {run.out}",
        (request.number if request else 0) or 15,
    )
