"""evaluate on videos that are no squares, whose right answer is another file; what it saw stands in the rows."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import inverting_torchcodec
from painted_video import write_painted

from stretchysnake.data.records import VideoRecord, write_records
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.eval.sweeps.evaluate import evaluate
from stretchysnake.eval.sweeps.evaluate_run import EvaluateRun
from stretchysnake.models.weights.files import read_checkpoint, save_weights
from stretchysnake.report.tables.cells import cells_of


def bands(colour, *, shift):
    """64 x 128: the colour left and right, where a centre crop does not see it; the middle is grey, with noise."""
    frames = np.random.default_rng(shift).integers(90, 110, (4, 64, 128, 3), dtype=np.uint8)
    frames[:, :, : 24 + shift] = frames[:, :, 104 - shift :] = colour
    return frames


@pytest.fixture
def run(trained, tmp_path):
    """Two classes that differ at the sides alone; queries are none of the gallery's files."""
    lists = {"gallery": [], "queries": []}
    for label, colour in enumerate([(255, 255, 255), (0, 0, 0)]):
        for shift in range(4):
            path = write_painted(tmp_path / f"{label}-{shift}.mp4", bands(colour, shift=shift))
            record = VideoRecord(path=str(path), label=label, class_name=f"class{label}")
            lists["queries" if shift == 1 else "gallery"].append(record)
    for name, records in lists.items():
        write_records(tmp_path / f"{name}.csv", records)
    return EvaluateRun(
        weights=trained[1].weights,
        gallery=str(tmp_path / "gallery.csv"),
        queries=str(tmp_path / "queries.csv"),
        out=str(tmp_path / "rows.jsonl"),
        frames=[2],
        sizes=[32],
        feature_cache=str(tmp_path / "features"),
    )


def test_the_picture_decides_what_is_found_and_is_told(run):
    (whole,) = evaluate(run)
    assert whole.value == 1.0 and (whole.picture, whole.sampling) == ("whole", "uniform")
    (centre,) = evaluate(replace(run, picture="centre", sampling="videomamba"))
    assert (centre.picture, centre.sampling) == ("centre", "videomamba")
    assert (whole.protocol, centre.protocol) == ("retrieval", "retrieval-centre-videomamba")
    assert whole.run_id != centre.run_id
    assert len(list((Path(run.feature_cache)).glob("*.safetensors"))) == 4  # none of them shared
    with pytest.raises(ValueError, match="mix protocols"):
        cells_of([whole, centre], dataset="queries")
    with pytest.raises(ValueError, match=r"differently \(centre, uniform; whole, uniform\)"):
        cells_of([whole, replace(whole, picture="centre", size=16)], dataset="queries")


def test_the_fit_decides_what_is_seen_and_is_told(run, tmp_path):
    rows = {fit: evaluate(replace(run, fit=fit))[0] for fit in (None, "square", "keep", "crop")}
    told = {fit: (row.fit, row.picture, row.protocol) for fit, row in rows.items()}
    assert told[None] == told["square"] == ("square", "whole", "retrieval")
    assert rows[None].run_id == rows["square"].run_id  # measured once
    assert told["keep"] == ("keep", "whole", "retrieval-keep") and rows["keep"].value == 1.0
    assert told["crop"] == ("crop", "centre", "retrieval-centre")
    assert len({row.run_id for row in rows.values()}) == 3
    assert len(list(Path(run.feature_cache).glob("*.safetensors"))) == 6  # none of them shared
    with pytest.raises(ValueError, match=r"mix protocols \(retrieval, retrieval-keep\)"):
        cells_of([rows["square"], rows["keep"]], dataset="queries")
    # 64 x 128 at 32 px and 8: 2 x 4 of 16 patches, by the features that were kept
    cached = replace(run, fit="keep", cache=str(tmp_path / "cache"), feature_cache=None)
    (again,) = evaluate(replace(cached, cache_frames=4))
    assert (again.fit, again.value) == ("keep", 1.0) and again.run_id != rows["keep"].run_id


def test_a_head_sees_squares_where_they_are_asked_for_and_else_the_centre(run):
    run = replace(run, protocols=["retrieval", "finetune", "head"])
    rows = {}
    for asked in (
        {},
        {"fit": "square"},
        {"picture": "whole"},
        {"fit": "square", "picture": "centre"},
    ):
        rows[", ".join(asked.values())] = evaluate(replace(run, **asked))
    told = {
        asked: [(row.protocol, row.picture, row.fit) for row in found]
        for asked, found in rows.items()
    }
    whole = [(name, "whole", "square") for name in ("retrieval", "finetune-whole", "head-whole")]
    centre = [(name, "centre", "crop") for name in ("finetune", "head")]
    assert told["square"] == told["whole"] == whole
    assert told[""] == [whole[0], *centre]
    assert told["square, centre"] == [("retrieval-centre", "centre", "crop"), *centre]
    assert rows[""][0] == rows["square"][0]  # measured once
    (seen,) = {row.correct for row in rows["whole"][1:]}
    assert [row.correct for row in rows["square"][1:]] == [seen] * 2


def test_weights_trained_with_a_fit_are_tested_with_it(run, tmp_path):
    state, header = read_checkpoint(run.weights)
    config = read_subject(run.weights)[0].config
    save_weights(tmp_path / "kept.safetensors", state, config, **{**header["run"], "fit": "keep"})
    kept = replace(run, weights=str(tmp_path / "kept.safetensors"))
    for change, fit in (
        ({}, "keep"),
        ({"fit": "square"}, "square"),
        ({"picture": "centre"}, "crop"),
    ):
        assert evaluate(replace(kept, **change))[0].fit == fit


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"picture": "center"}, r"picture \('center'\) must be one of"),
        ({"picture": "centre", "cache": "c"}, r"cache \(c\) holds squares; leave the cache out"),
        ({"sampling": "videomamba", "cache": "c"}, r"sampling \(videomamba\) needs the whole video"),
        ({"fit": "fill"}, r"fit \('fill'\) must be one of: square, keep, crop"),
        ({"fit": "keep", "picture": "centre"}, r"picture \(centre\) and fit \(keep\), which shows"),
        ({"sampling": "official"}, r"rule \('official'\) must be one of: uniform"),
        ({"stride": 4}, r"stride \(4\) must be"),
        ({"picture": "whole", "num_crops": 3, "protocols": ["finetune"]}, r"num_crops \(3\) cuts"),
        ({"fit": "square", "num_crops": 3, "protocols": ["head"]}, r"an asked fit \(square\), squashes it"),
    ],
)  # fmt: skip
def test_what_cannot_be_seen_is_refused_before_any_work(run, change, text):
    with pytest.raises(ValueError, match=text):
        evaluate(replace(run, **change))


def test_the_decoder_decides_what_is_seen_and_is_told(run, monkeypatch):
    """Of one white and one black class the complement changes places: a query finds its own class all the same."""
    inverting_torchcodec.remove(monkeypatch)
    other = replace(run, decoder="torchcodec")
    with pytest.raises(RuntimeError, match=r"pip install 'stretchysnake\[torchcodec\]'"):
        evaluate(other)
    with pytest.raises(ValueError, match=r"decoder \(torchcodec\) reads the files, and cache"):
        evaluate(replace(other, cache="frames"))
    with pytest.raises(ValueError, match=r"decoder \('vlc'\) must be one of: pyav, torchcodec"):
        evaluate(replace(run, decoder="vlc"))
    assert not Path(run.out).exists()
    inverting_torchcodec.install(monkeypatch)
    (pyav,), (torchcodec,) = evaluate(run), evaluate(other)
    assert pyav.run_id != torchcodec.run_id and (pyav.value, torchcodec.value) == (1.0, 1.0)
    assert "decoded by" not in pyav.note and torchcodec.note == "decoded by torchcodec"
    assert len(list((Path(run.feature_cache)).glob("*.safetensors"))) == 4  # none of them shared
