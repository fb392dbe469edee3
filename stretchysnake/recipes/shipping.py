"""Put the weights of finished trainings into the package, under a name, with a card, and renew the table beside them.

    python -m stretchysnake.recipes.shipping \\
        stretchysnake-nano=runs/study/static_tokens-seed0-500 videomamba-nano=runs/study/start-seed0-2000

Each FOLDER is that of a training on MotionDigits (weights.safetensors, run.json); a name that is there already gets the
new weights. `--table` alone writes the table anew, for files that were put there by hand. Run it from a checkout: it
writes into the package that is imported.
"""

import json
import shutil
import sys
from pathlib import Path

from stretchysnake.models.weights.from_file import model_of
from stretchysnake.models.weights.shipped.probes import probe_features
from stretchysnake.models.weights.shipped.shipped import FOLDER, TABLE, all_shipped
from stretchysnake.whole_file import sha256_of, write_whole

LICENCE = "Apache-2.0"
DATA_LICENCE = (
    "its videos are drawn from the UCI digits (Alpaydin and Kaynak, Optical Recognition of "
    "Handwritten Digits), CC BY 4.0"
)


def ship(name: str, training: Path, *, into: Path = FOLDER) -> None:
    """Write the folder of `save_pretrained` of a finished training on MotionDigits; the table is `renew_table`'s.

    ValueError where the folder holds no finished training, or one on other videos.
    """
    written = _read(training / "run.json", "a finished training")
    run = written["run"]
    data = _read(Path(run["data"]).parent / "settings.json", "MotionDigits beside its list")
    if data.get("benchmark") != "MotionDigits":
        raise ValueError(
            f"training ({training}) must be on MotionDigits; its data is {run['data']}"
        )
    clips = Path(run["data"]).read_text(encoding="utf-8").count("\n") - 1
    model, _ = model_of(training / "weights.safetensors")
    shutil.rmtree(into / name, ignore_errors=True)
    model.save_pretrained(
        into / name,
        licence=LICENCE,
        steps=run["steps"],
        **_begun(run),
        batch_size=run["batch_size"],
        commit=written["environment"]["commit"],
        trained_on=f"MotionDigits, version {data['version']}, data seed {data['seed']}, {clips:,} clips",
        data_licence=DATA_LICENCE,
    )


def _begun(run: dict) -> dict[str, str]:
    """What the training went on from, in words; nothing where it was from scratch."""
    if run.get("weights") is None:
        return {}
    if run["weights"] in all_shipped():
        return {"begun": run["weights"]}
    first = _read(Path(run["weights"]).parent / "run.json", "the training that it went on from")
    return {"begun": f"{first['run']['variant']}, {first['run']['steps']:,} steps"}


def renew_table(folder: Path = FOLDER) -> None:
    """Write table.json of the models that lie in the folder, in the order of their names."""
    names = sorted(path.parent.name for path in folder.glob("*/model.safetensors"))
    rows = {}
    for name in names:
        file = folder / name / "model.safetensors"
        features = [[float(f"{x:.7g}") for x in clip] for clip in probe_features(file)]
        rows[name] = {"sha256": sha256_of(file), "features": features}
    # one line a row of numbers
    lines = [
        f' {json.dumps(name)}: {{"sha256": "{row["sha256"]}", "features": [\n  '
        + ",\n  ".join(map(json.dumps, row["features"]))
        + "]}"
        for name, row in rows.items()
    ]
    write_whole(folder / TABLE, "{\n" + ",\n".join(lines) + "\n}\n")


def _read(path: Path, what: str) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} must be readable, as of {what}: {error}") from None


def main(words: list[str]) -> int:
    pairs = [word.partition("=") for word in words if word != "--table"]
    if not words or any(not (name and folder) for name, _, folder in pairs):
        print(__doc__)
        return 2
    try:
        for name, _, folder in pairs:
            ship(name, Path(folder))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    renew_table()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
