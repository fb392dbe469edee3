"""The command line: one verb per job. Imports lazily, so that --help answers at once."""

import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

HELP = """stretchysnake: one video backbone for any length, any resolution, any budget.

usage: stretchysnake VERB [options]      (stretchysnake VERB --help shows an example)

  quickstart   make videos, train vanilla and static tokens, measure both over every scale, show a report
  train        train a model on a list or a folder of videos
  evaluate     retrieval over a grid of scales: one row per cell
  report       one HTML page from measured rows
  embed        features of any mp4, avi, webm, mkv ... files or folders
  doctor       what this installation can and cannot do

  --version    print the version
"""

EXAMPLES = {
    "quickstart": "stretchysnake quickstart --out runs/quickstart --steps 1500",
    "train": "stretchysnake train --data clips.csv --out runs/mine --variant static_tokens --steps 2000\n"
    "  stretchysnake train --data clips/ --out runs/mine --print_config > run.yaml\n"
    "  stretchysnake train --config run.yaml --optim.lr 0.001\n"
    "  stretchysnake train pretrain_static_tokens --data k400.csv --out runs/k400 --dry-run\n"
    "  stretchysnake train --resume runs/mine\n"
    "  torchrun --nproc-per-node 4 -m stretchysnake.cli train --config run.yaml",
    "evaluate": "stretchysnake evaluate --weights runs/mine/weights.safetensors --gallery train.csv "
    "--queries test.csv\n    --frames [8,16] --sizes [16,32,64] --out runs/mine/rows.jsonl",
    "report": "stretchysnake report runs/a/rows.jsonl runs/b/rows.jsonl --out report.html",
    "embed": "stretchysnake embed holiday/ clip.webm --weights runs/mine/weights.safetensors --out features/",
    "doctor": "stretchysnake doctor",
}


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
    try:
        return {
            "quickstart": _quickstart,
            "train": _train,
            "evaluate": _evaluate,
            "report": _report,
            "embed": _embed,
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


def _parsed(
    verb: str, run_class: type, argv: list[str], *, paths: bool = False, defaults: object = None
):
    """(run, positional paths) of a verb, from the command line, --config YAML and the recipe `defaults`."""
    try:
        from argparse import RawDescriptionHelpFormatter

        from jsonargparse import ArgumentParser, DefaultHelpFormatter
    except ImportError:
        raise RuntimeError(
            "the command line needs jsonargparse: pip install 'jsonargparse[signatures]'"
        ) from None

    class Formatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
        """Keeps the lines of the example."""

    parser = ArgumentParser(
        formatter_class=Formatter,
        prog=f"stretchysnake {verb}",
        description=f"{(run_class.__doc__ or '').strip()}\n\nexample:\n  {EXAMPLES[verb]}",
        exit_on_error=True,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these fields")
    if paths:
        parser.add_argument("paths", nargs="+", type=str, help="files or folders")
    parser.add_class_arguments(run_class)
    if defaults is not None:
        parser.set_defaults(asdict(defaults))
    values = dict(vars(parser.instantiate(parser.parse_args(argv))))
    values.pop("config", None)
    given = values.pop("paths", [])
    return run_class(**values), given


class _Progress:
    """Prints a line over itself on a terminal, and one line every ten seconds elsewhere."""

    def __init__(self):
        self.terminal, self.printed, self.open = sys.stderr.isatty(), 0.0, False

    def __call__(self, text: str) -> None:
        if self.terminal:
            print(f"\r\x1b[K{text[:150]}", end="", file=sys.stderr, flush=True)
            self.open = True
        elif time.monotonic() - self.printed > 10:
            self.printed = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.open:
            print(file=sys.stderr)
            self.open = False


def _quickstart(argv: list[str]) -> int:
    from stretchysnake.recipes.quickstart import QuickstartRun, quickstart

    run, _ = _parsed("quickstart", QuickstartRun, argv)
    progress, started = _Progress(), time.perf_counter()
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
        run, _ = _parsed("train", TrainRun, argv, defaults=defaults)
    ranks = {name: int(os.environ.get(name.upper(), 0)) for name in ("rank", "local_rank")}
    from stretchysnake.train.runtime import open_runtime

    with open_runtime(world_size=int(os.environ.get("WORLD_SIZE", 1)), **ranks) as runtime:
        if dry:
            from stretchysnake.recipes.dry_run import dry_run

            print("\n".join(dry_run(run, runtime=runtime)))
            return 0
        from stretchysnake.train.loop import train

        progress = _Progress()
        result = train(run, progress=progress if runtime.is_first else None, runtime=runtime)
        progress.close()
        if runtime.is_first:
            print(
                f"loss {result.final_loss:.3f} after {len(result.losses)} steps, {result.clips} clips, "
                f"{result.seconds:.0f} s\nweights: {result.weights}"
            )
    return 0


def _evaluate(argv: list[str]) -> int:
    from stretchysnake.eval.run import EvaluateRun

    run, _ = _parsed("evaluate", EvaluateRun, argv)
    from stretchysnake.eval.evaluate import evaluate
    from stretchysnake.report.tables import render_text

    progress = _Progress()
    rows = evaluate(run, progress=progress)
    progress.close()
    print(render_text(rows))
    print(f"rows: {run.out}")
    return 0


def _report(argv: list[str]) -> int:
    run, paths = _parsed("report", ReportRun, argv, paths=True)
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
    run, paths = _parsed("embed", EmbedRun, argv, paths=True)
    from stretchysnake.eval.embed import embed, save_embeddings

    progress = _Progress()
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


def _doctor(argv: list[str]) -> int:
    import importlib.util

    import torch

    from stretchysnake import __version__
    from stretchysnake.ops.selective_scan_cpu import is_available, unavailable_reason

    print(
        f"stretchysnake {__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    if is_available():
        print("native CPU kernels: yes")
    else:
        print(
            f"native CPU kernels: no ({unavailable_reason()}); scans run in PyTorch, several times slower"
        )
    print(f"GPU: {torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'}")
    for module, extra in (
        ("av", None),
        ("jsonargparse", None),
        ("matplotlib", "report"),
        ("sklearn", "probe"),
    ):
        there = importlib.util.find_spec(module) is not None
        command = f"pip install 'stretchysnake[{extra}]'" if extra else f"pip install {module}"
        print(f"{module}: {'yes' if there else 'no, ' + command}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
