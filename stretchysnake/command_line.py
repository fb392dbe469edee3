"""How every verb reads its words and shows how far it is. The verbs are in cli.py."""

import sys
import time
from dataclasses import asdict

EXAMPLES = {
    "quickstart": "stretchysnake quickstart --out runs/quickstart --steps 1500",
    "train": "stretchysnake train --data clips.csv --out runs/mine --variant static_tokens --steps 2000\n"
    "  stretchysnake train --data clips/ --out runs/mine --print_config > run.yaml\n"
    "  stretchysnake train --config run.yaml --optim.lr 0.001\n"
    "  stretchysnake train pretrain_static_tokens --data k400.csv --out runs/k400 --dry-run\n"
    "  stretchysnake train --resume runs/mine\n"
    "  torchrun --nproc-per-node 4 -m stretchysnake.cli train --config run.yaml",
    "evaluate": "stretchysnake evaluate --weights runs/mine/weights.safetensors --gallery train.csv "
    "--queries test.csv\n    --frames [8,16] --sizes [16,32,64] --out runs/mine/rows.jsonl\n"
    "  stretchysnake evaluate --config run.yaml --protocols [retrieval,probe] --metrics [top1,map,gallery_top1] "
    "--feature_cache features/",
    "report": "stretchysnake report runs/a/rows.jsonl runs/b/rows.jsonl --out report.html",
    "embed": "stretchysnake embed holiday/ clip.webm --weights runs/mine/weights.safetensors --out features/",
    "data": "stretchysnake data check clips/ --report check.json --clean clean.csv\n"
    "  stretchysnake data info hmdb51 /data/hmdb51 --split 2 --missing missing.txt\n"
    "  stretchysnake data list ucf101 /data/ucf101 --subset test --split 1 --out test.csv\n"
    "  stretchysnake data list lvu /data/lvu --task scene --out scene.csv",
    "doctor": "stretchysnake doctor",
}


def parsed(
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
        description=f"{(run_class.__doc__ or '').strip()}\n\nexample:\n  {EXAMPLES[verb.split()[0]]}",
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


class Progress:
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
