"""What UPGRADING.md says: its paths exist, and caches of another version are other files."""

import re
from pathlib import Path

from stretchysnake.data.clips import frame_cache
from stretchysnake.data.clips.clip_source import DecodedClips
from stretchysnake.data.records import VideoRecord
from stretchysnake.eval.features import feature_cache
from stretchysnake.flexibility import Scale

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
