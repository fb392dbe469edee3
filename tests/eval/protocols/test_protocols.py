"""What a protocol measures on two feature sets, and what it writes into a row."""

from dataclasses import replace

import pytest
import torch
from test_retrieval import feature_set

from stretchysnake.eval.protocols.protocol import Protocol, measured_fields
from stretchysnake.results.comparison import unpack_correct
from stretchysnake.results.intervals import wilson_interval

GALLERY = feature_set([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 1.0]] * 3, [0, 0, 1, 1] * 3)
QUERIES = replace(
    feature_set([[1.0, 0.1], [0.2, 1.0], [1.0, 0.3]], [0, 1, 1]), paths=["a.mp4", "b.mp4", "c.mp4"]
)


def test_names_tell_apart_what_cannot_be_compared():
    assert Protocol().name == "retrieval"
    assert Protocol(similarity="l2", group_safe=True).name == "retrieval-l2-group-safe"
    assert Protocol(kind="probe").name == "probe"


def test_retrieval_and_probe_judge_the_same_queries():
    protocol = Protocol(metrics=("top1", "map", "gallery_top1"))
    measured = {metric: values for metric, values, _ in protocol.measure(GALLERY, QUERIES)}
    assert measured["top1"].tolist() == [True, True, False]
    assert len(measured["gallery_top1"]) == 12
    ((metric, values, note),) = Protocol(kind="probe").measure(GALLERY, QUERIES)
    assert metric == "top1" and values.tolist() == [True, True, False]
    assert note.startswith("C ")


def test_fields_hold_value_interval_and_who_was_right():
    fields = measured_fields(torch.tensor([True, True, False]), QUERIES)
    assert fields["value"] == pytest.approx(2 / 3)
    assert (fields["low"], fields["high"]) == wilson_interval(2, 3)
    assert unpack_correct(fields["correct"], 3) == [True, True, False]
    assert (fields["num_queries"], fields["num_expected"]) == (3, 3)
    others = feature_set(QUERIES.features, [0, 1, 0])
    again = measured_fields(torch.tensor([True, True, False]), others)
    assert again["queries"] != fields["queries"]  # other labels are other queries


def test_interval_is_over_the_queries_answered():
    asked = replace(QUERIES, num_expected=7)
    fields = measured_fields(torch.tensor([True, True, False]), asked)
    assert (fields["low"], fields["high"]) == wilson_interval(2, 3)
    assert (fields["num_queries"], fields["num_expected"]) == (3, 7)


def test_precision_is_no_share_and_gets_a_bootstrap_interval():
    fields = measured_fields(torch.tensor([0.5, 0.75, 1.0]).double(), QUERIES)
    assert fields["value"] == 0.75 and fields["correct"] == ""
    assert 0.5 <= fields["low"] < 0.75 < fields["high"] <= 1.0


def test_gallery_metrics_count_the_gallery():
    fields = measured_fields(torch.ones(12, dtype=torch.bool), GALLERY)
    assert (fields["num_queries"], fields["num_expected"]) == (12, 12)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"kind": "zero"},
            r"protocol \(.zero.\) must be one of: retrieval, probe, finetune, probe-sgd",
        ),
        ({"metrics": ("top5",)}, r"metric \('top5'\) must be one of"),
        ({"kind": "probe", "metrics": ("map",)}, r"metrics \(map\) of probe must be top1 alone"),
        ({"kind": "probe", "group_safe": True}, "belong to retrieval; probe has neither"),
        (
            {"kind": "probe", "num_views": 2},
            r"num_views \(2\) belongs to finetune, probe-sgd, head; probe takes one view: leave it at 1",
        ),
        (
            {"num_crops": 3},
            r"num_crops \(3\) belongs to finetune, probe-sgd, head; retrieval takes the whole picture",
        ),
        ({"kind": "finetune", "num_crops": 2}, r"num_crops \(2\) 1 or 3"),
        ({"similarity": "dot"}, r"similarity \('dot'\) must be one of: cosine, l2"),
    ],
)
def test_settings_are_checked(settings, text):
    with pytest.raises(ValueError, match=text):
        Protocol(**settings)
