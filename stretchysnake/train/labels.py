"""The records of a training, with labels that are outputs of its head."""

from dataclasses import replace

from stretchysnake.data.classes import Classes, contradictions, number_classes
from stretchysnake.data.records import VideoRecord, read_records
from stretchysnake.models.weights.files import read_checkpoint
from stretchysnake.models.weights.published.named import weights_file
from stretchysnake.train.run import TrainRun


def labelled_records(run: TrainRun) -> Classes:
    """The records of `run.data` and the classes of the run's head.

    Labels keep their numbers where `model.num_classes` says how many outputs there are, and where the head of
    `run.weights` ends with the highest label (a head of 400, a list of Kinetics-400 that lacks some classes).
    Else the labels that occur are the classes.
    """
    records = read_records(run.data)
    numbered = _numbered(run, records)
    return replace(numbered, notes=[*numbered.notes, *contradictions(records)])


def _numbered(run: TrainRun, records: list[VideoRecord]) -> Classes:
    outputs = run.model.num_classes
    if not outputs:
        numbered = number_classes(records)
        highest = max(record.label for record in records)
        if run.weights is None or len(numbered.names) == highest + 1:
            return numbered
        head = read_checkpoint(weights_file(run.weights))[0].get("head.weight")
        if head is None or len(head) != highest + 1:
            return numbered
        outputs = len(head)
    return number_classes(records, num_classes=outputs)
