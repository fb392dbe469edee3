"""What UPGRADING.md says: its paths exist, and caches of another version are other files."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import torch

from stretchysnake.data.clips import frame_cache
from stretchysnake.data.clips.clip_source import DecodedClips
from stretchysnake.data.records import VideoRecord
from stretchysnake.eval.features import feature_cache
from stretchysnake.eval.features.extraction import FeatureSet
from stretchysnake.flexibility import Scale
from stretchysnake.results.rows import read_rows
from stretchysnake.search.index import IndexSettings

ROOT = Path(__file__).resolve().parents[1]


def test_every_test_and_document_named_exists():
    text = (ROOT / "UPGRADING.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/.]+)`", text) + re.findall(r"\]\(([\w/.]+)\)", text)
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_module_that_moved_is_where_it_says():
    text = (ROOT / "UPGRADING.md").read_text(encoding="utf-8").partition("| before | now |")[2]
    cells = [line.split("|")[2] for line in text.splitlines() if line.startswith("| `")]
    modules = re.findall(r"`(stretchysnake(?:\.[a-z_]+)+)`", " ".join(cells))
    assert len(modules) >= 6
    for module in modules:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file(), module


def test_frames_and_features_kept_by_another_version_are_made_anew(monkeypatch, clip_folder):
    records = [VideoRecord(str(clip_folder / "class0" / "0.mp4"), 0)]

    def keys():
        clips = DecodedClips(records)
        return (
            frame_cache._key(records, 4, 16),
            feature_cache.features_key("weights", clips, Scale(4, 16, 8)),
        )

    now = keys()
    assert keys() == now
    monkeypatch.setattr(frame_cache, "VERSION", frame_cache.VERSION - 1)
    monkeypatch.setattr(feature_cache, "VERSION", feature_cache.VERSION - 1)
    before = keys()
    assert before[0] != now[0] and before[1] != now[1]


def test_what_says_no_precision_is_of_fp32(tmp_path):
    settings = IndexSettings(weights_sha256="0", width=4, scale=Scale(4, 16, 8))
    before = {name: value for name, value in asdict(settings).items() if name != "precision"}
    assert IndexSettings.from_dict(before).differences(settings) == ""
    (tmp_path / "rows.jsonl").write_text(
        '{"run_id": "r", "protocol": "retrieval", "dataset": "d", "model": "vanilla", "seed": 0, "num_frames": 4, '
        '"size": 16, "patch_size": 8, "metric": "top1", "value": 0.5, "num_queries": 2, "num_expected": 2, '
        '"num_gallery": 2, "gflops": 1.0, "milliseconds": 1.0, "trained": true, "native": true}\n'
    )
    assert read_rows(tmp_path / "rows.jsonl")[0].precision == "fp32"
    path, labels = tmp_path / "f.safetensors", torch.tensor([1])
    kept = FeatureSet(torch.ones(1, 4), labels, ["g"], ["p"], Scale(4, 16, 8), 1, "w")
    feature_cache.save_features(path, kept)
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert manifest.pop("precision") == "fp32"
    path.with_suffix(".json").write_text(json.dumps(manifest))
    assert feature_cache.load_features(path).precision == "fp32"
