"""The rows in a study's folder, and of which training each is."""

from pathlib import Path

from stretchysnake.recipes.study.conditions import Training
from stretchysnake.recipes.study.design import StudyRun
from stretchysnake.results.rows import Row, read_rows, select
from stretchysnake.train.checkpoints.identity import settings_digest

NAME = "rows.jsonl"


def row_files(folder: str | Path) -> list[Path]:
    """The files of rows in a study's folder: compressed ones first, which a later sitting went on from."""
    return [path for name in (f"{NAME}.gz", NAME) if (path := Path(folder) / name).is_file()]


def rows_in(run: StudyRun) -> list[Row]:
    """All rows in the study's folder."""
    return [row for path in row_files(run.out) for row in read_rows(path)]


def check_weights(run: StudyRun, training: Training, weights: str, *, source: str) -> None:
    """ValueError where the study's folder holds retrieval of this very training with other weights than these
    (model_hash): what is measured now would be compared with what was measured of another model."""
    of_it = settings_digest(training.run), training.num_steps, training.row_model, training.seed
    for row in select(rows_in(run), protocol="retrieval"):
        its = row.run_id.split("-")[0], row.train_steps, row.model, row.seed
        if its == of_it and row.train_data == source and row.weights not in ("", weights):
            raise ValueError(
                f"out ({run.out}) holds rows of {training.shown}, seed {training.seed}, of other weights "
                f"({row.weights}) than the training here gave ({weights}), as another machine may in the last bits. "
                "Bring the folders of the trainings along with the rows, or give another --out"
            )
