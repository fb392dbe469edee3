"""The command line: one verb per job. Imports lazily, so that --help answers at once."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from stretchysnake.allocator import keep_freed_memory
from stretchysnake.command_line import EXAMPLES, Progress, parsed

HELP = """stretchysnake: one video backbone for any length, any resolution, any budget.

usage: stretchysnake VERB [options]      (stretchysnake VERB --help shows an example)

  quickstart   make videos, train vanilla and static tokens, measure both over every scale, show a report
  train        train a model on a list or a folder of videos
  evaluate     retrieval or a linear probe over a grid of scales: one row per cell and metric
  report       one HTML page from measured rows
  embed        features of any mp4, avi, webm, mkv ... files or folders
  data         info, list: a public benchmark's state and its official lists; check: a verdict per video
  doctor       what this installation can and cannot do

  --version    print the version
"""


@dataclass(frozen=True, kw_only=True)
class EmbedRun:
    """Features of videos."""

    weights: str
    """weights.safetensors of a training, or an official checkpoint."""
    out: str
    """Folder for features.npy, meta.jsonl and manifest.json."""
    frames: int | None = None
    """Frames per video; null means the native number."""
    size: int | None = None
    """Pixels per side; null means the native size."""


@dataclass(frozen=True, kw_only=True)
class ReportRun:
    """One self-contained HTML page from rows."""

    out: str = "report.html"


def main(argv: list[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0 done, 2 a mistake of the caller's, 130 Ctrl-C, 143 SIGTERM."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if argv[0] == "--version":
        from stretchysnake import __version__

        print(__version__)
        return 0
    verb, rest = argv[0], argv[1:]
    if verb not in EXAMPLES:
        import difflib

        near = difflib.get_close_matches(verb, EXAMPLES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"verbs: {', '.join(EXAMPLES)}"
        print(f"error: verb ({verb}) is not known; {hint}", file=sys.stderr)
        return 2
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "passive"
    )  # spinning OpenMP pools cost milliseconds a call
    keep_freed_memory()
    try:
        return {
            "quickstart": _quickstart,
            "train": _train,
            "evaluate": _evaluate,
            "report": _report,
            "embed": _embed,
            "data": _data,
            "doctor": _doctor,
        }[verb](rest)
    except KeyboardInterrupt:
        print(
            "\ninterrupted; finished stages are kept, the same command goes on from there",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from stretchysnake.data.decode_error import DecodeError
        from stretchysnake.train.interrupt import TrainingInterrupted

        if isinstance(error, TrainingInterrupted):
            print(f"\n{error}", file=sys.stderr)
            return error.exit_code
        expected = isinstance(error, (ValueError, RuntimeError, OSError, DecodeError))
        if not expected or os.environ.get("STRETCHYSNAKE_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


def _quickstart(argv: list[str]) -> int:
    from stretchysnake.recipes.quickstart import QuickstartRun, quickstart

    run, _ = parsed("quickstart", QuickstartRun, argv)
    progress, started = Progress(), time.perf_counter()
    report, headlines = quickstart(run, progress=progress)
    progress.close()
    for line in headlines:
        print(line)
    print(f"report: {report}   ({(time.perf_counter() - started) / 60:.1f} min)")
    return 0


def _train(argv: list[str]) -> int:
    from stretchysnake.train.run import TrainRun

    argv, dry = [word for word in argv if word != "--dry-run"], "--dry-run" in argv
    if "--resume" in argv:
        if len(argv) != 2 or argv[0] != "--resume":
            raise ValueError(
                "--resume takes the folder of a started training and nothing else; "
                "a run with other settings is a new run in another folder"
            )
        from stretchysnake.train.outputs import started_run

        run = started_run(Path(argv[1]))
    else:
        defaults = None
        if argv and not argv[0].startswith("-"):
            from stretchysnake.recipes.named import recipe_named

            defaults = recipe_named(argv.pop(0))
        run, _ = parsed("train", TrainRun, argv, defaults=defaults)
    ranks = {name: int(os.environ.get(name.upper(), 0)) for name in ("rank", "local_rank")}
    from stretchysnake.train.runtime import open_runtime

    with open_runtime(world_size=int(os.environ.get("WORLD_SIZE", 1)), **ranks) as runtime:
        if dry:
            from stretchysnake.recipes.dry_run import dry_run

            print("\n".join(dry_run(run, runtime=runtime)))
            return 0
        from stretchysnake.train.loop import train

        progress = Progress()
        result = train(run, progress=progress if runtime.is_first else None, runtime=runtime)
        progress.close()
        if runtime.is_first:
            print(
                f"loss {result.final_loss:.3f} after {len(result.losses)} steps, {result.clips} clips, "
                f"{result.seconds:.0f} s\nweights: {result.weights}"
            )
    return 0


def _evaluate(argv: list[str]) -> int:
    from stretchysnake.eval.bad_videos import incomplete
    from stretchysnake.eval.run import EvaluateRun

    run, _ = parsed("evaluate", EvaluateRun, argv)
    from stretchysnake.eval.evaluate import evaluate
    from stretchysnake.report.tables import render_text

    progress = Progress()
    rows = evaluate(run, progress=progress)
    progress.close()
    print(render_text(rows))
    print(f"rows: {run.out}")
    return 1 if run.on_error == "report" and incomplete(rows) else 0


def _report(argv: list[str]) -> int:
    run, paths = parsed("report", ReportRun, argv, paths=True)
    from stretchysnake.report.context import ReportContext
    from stretchysnake.report.page import write_page
    from stretchysnake.report.tables import render_text
    from stretchysnake.results import environment, read_rows

    rows = [row for path in paths for row in read_rows(path)]
    if not rows:
        raise ValueError(
            f"rows ({', '.join(paths)}) hold no measured number; run stretchysnake evaluate first"
        )
    commands = ["stretchysnake report " + " ".join(paths) + f" --out {run.out}"]
    write_page(run.out, rows, ReportContext(commands=commands, versions=environment()))
    print(render_text(rows))
    print(f"report: {run.out}")
    return 0


def _embed(argv: list[str]) -> int:
    run, paths = parsed("embed", EmbedRun, argv, paths=True)
    from stretchysnake.eval.embed import embed, save_embeddings

    progress = Progress()
    found = embed(
        paths, weights=run.weights, num_frames=run.frames, size=run.size, progress=progress
    )
    progress.close()
    for _, reason in found.failures:  # the reason names the file
        print(f"skipped {reason}", file=sys.stderr)
    for path in found.repeated:
        print(
            f"{path}: fewer than {found.scale.num_frames} frames, frames repeated", file=sys.stderr
        )
    if not found.paths:
        raise ValueError(
            f"none of the {len(found.failures)} videos could be read; nothing was written"
        )
    save_embeddings(run.out, found)
    print(
        f"{len(found.paths)} of {len(found.paths) + len(found.failures)} videos, "
        f"{found.features.shape[1]} numbers each, at T={found.scale.num_frames} S={found.scale.size}: {run.out}"
    )
    return 0 if not found.failures else 1


def _data(argv: list[str]) -> int:
    verbs = {"info": _data_benchmark, "list": _data_benchmark, "check": _data_check}
    if argv[:1] in (["-h"], ["--help"]):
        print(
            f"usage: stretchysnake data {{{','.join(verbs)}}} ...\n\nexample:\n  {EXAMPLES['data']}"
        )
        raise SystemExit(0)
    if not argv or argv[0] not in verbs:
        found = f"({argv[0]})" if argv else "is not given and"
        raise ValueError(f"data action {found} must be one of: {', '.join(verbs)}")
    return verbs[argv[0]](argv)


def _data_benchmark(argv: list[str]) -> int:
    from stretchysnake.data.benchmarks.run import DataInfoRun, DataListRun, data_info, data_list

    run_class, act = {"info": (DataInfoRun, data_info), "list": (DataListRun, data_list)}[argv[0]]
    run, given = parsed(f"data {argv[0]}", run_class, argv[1:], paths=True)
    if len(given) != 2:
        raise ValueError(f"data {argv[0]} ({' '.join(given)}) must name a benchmark and its folder")
    code, lines = act(run, *given)
    print(*lines, sep="\n")
    return code


def _data_check(argv: list[str]) -> int:
    from stretchysnake.data.audit import CheckRun, check
    from stretchysnake.data.verdicts import render_audit

    run, paths = parsed("data check", CheckRun, argv[1:], paths=True)
    progress = Progress()
    audit = check(paths, run, progress=progress)
    progress.close()
    print(render_audit(audit))
    for name, path in (("report", run.report), ("clean list", run.clean)):
        if path:
            print(f"{name}: {path}")
    return 1 if audit.bad or audit.bad_records else 0


def _doctor(argv: list[str]) -> int:
    from stretchysnake.doctor import doctor

    if argv:
        raise ValueError(f"doctor ({' '.join(argv)}) takes no arguments")
    sound, lines = doctor()
    print(*lines, sep="\n")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
