"""FeatureSets on disk: whole, of the right weights, computed once."""

import json
import os
import shutil

import pytest
import torch

import stretchysnake.eval.features.feature_cache as module
from stretchysnake import Scale, read_records
from stretchysnake.data.clips.loader import DecodedClips, open_clips
from stretchysnake.eval.features.extraction import FeatureSet, check_comparable, extract, model_hash
from stretchysnake.eval.features.feature_cache import (
    cached_features,
    features_key,
    load_features,
    save_features,
)
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.whole_file import Damaged

SCALE = Scale(4, 16, 4)


def hand_made(**changes):
    fields = {
        "features": torch.randn(3, 5),
        "labels": torch.tensor([2, 0, 2]),
        "groups": ["a", "", "ü"],
        "paths": ["x.mp4", "y z.mp4", 'q".avi'],
        "scale": SCALE,
        "num_expected": 4,
        "model": "abcd",
    }
    return FeatureSet(**(fields | changes))


@pytest.fixture
def model(trained):
    return read_subject(trained[1].weights)[0]


@pytest.fixture
def counted(monkeypatch):
    """Counts the extractions that really happen."""
    calls = []

    def counting(model, clips, scale, **kwargs):
        calls.append(scale)
        return extract(model, clips, scale, **kwargs)

    monkeypatch.setattr(module, "extract", counting)
    return calls


def test_a_set_comes_back_as_saved(tmp_path):
    saved = hand_made()
    save_features(tmp_path / "deep" / "f.safetensors", saved)
    back = load_features(tmp_path / "deep" / "f.safetensors", model="abcd")
    assert torch.equal(back.features, saved.features) and torch.equal(back.labels, saved.labels)
    assert (back.groups, back.paths, back.scale) == (saved.groups, saved.paths, saved.scale)
    assert (back.num_expected, back.model) == (4, "abcd")
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["f.json", "f.safetensors"]


def test_other_weights_are_refused(tmp_path):
    save_features(tmp_path / "f.safetensors", hand_made())
    with pytest.raises(ValueError, match="features of model abcd, not of beef; they do not belong"):
        load_features(tmp_path / "f.safetensors", model="beef")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "content differs from its sha256"),
        (lambda p: p.with_suffix(".json").write_text("{"), "not a stored feature set"),
        (lambda p: p.with_suffix(".json").write_text("{}"), "not a stored feature set"),
        (lambda p: p.with_suffix(".json").unlink(), "f.json is missing"),
        (lambda p: p.unlink(), "f.safetensors is missing"),
    ],
    ids=["torn", "no json", "empty json", "no manifest", "no features"],
)
def test_damage_is_told(tmp_path, damage, reason):
    path = tmp_path / "f.safetensors"
    save_features(path, hand_made())
    damage(path)
    with pytest.raises(Damaged, match=reason):
        load_features(path)


def test_a_changed_number_is_found_by_its_sha256(tmp_path):
    path = tmp_path / "f.safetensors"
    save_features(path, hand_made())
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged, match="sha256"):
        load_features(path)


def test_names_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        save_features(tmp_path / "f.npy", hand_made())


def test_features_are_computed_once(model, clip_folder, tmp_path, counted):
    clips = DecodedClips(read_records(clip_folder))
    first = cached_features(model, clips, SCALE, folder=tmp_path)
    again = cached_features(model, clips, SCALE, folder=tmp_path)
    assert torch.equal(first.features, again.features) and counted == [SCALE]
    cached_features(model, clips, Scale(4, 24, 6), folder=tmp_path)
    assert len(counted) == 2
    cached_features(model, clips, SCALE, folder=None)
    assert len(counted) == 3


def test_a_damaged_entry_is_computed_again_and_said(model, clip_folder, tmp_path, counted):
    clips = DecodedClips(read_records(clip_folder)[:3])
    first = cached_features(model, clips, SCALE, folder=tmp_path)
    (entry,) = tmp_path.glob("*.safetensors")
    entry.write_bytes(b"")
    notes = []
    again = cached_features(model, clips, SCALE, folder=tmp_path, notes=notes)
    assert torch.equal(first.features, again.features) and len(counted) == 2
    assert "content differs from its sha256" in notes[0]
    assert load_features(entry).paths == first.paths  # whole again


def test_the_centre_and_a_crop_are_one_entry_and_one_fit(model, clip_folder, tmp_path, counted):
    records = read_records(clip_folder)
    ways = [{"picture": "centre"}, {"fit": "crop"}]

    def made(records, way):
        return cached_features(model, DecodedClips(records, **way), SCALE, folder=tmp_path)

    gallery = made(records[::2], ways[0])
    (manifest,) = tmp_path.glob("*.json")
    kept = json.loads(manifest.read_text())
    assert kept["fit"] == "crop"
    manifest.write_text(json.dumps({**kept, "fit": "square"}))  # as earlier versions wrote it
    for number, way in enumerate(ways):
        again, queries = made(records[::2], way), made(records[1 + 2 * number :: 2], way)
        assert torch.equal(again.features, gallery.features) and again.fit == "crop"
        check_comparable(again, queries)
    assert len(counted) == 3  # the gallery once


def test_an_entry_renamed_to_another_models_key_is_refused(model, clip_folder, tmp_path):
    clips = DecodedClips(read_records(clip_folder)[:3])
    cached_features(model, clips, SCALE, folder=tmp_path)
    (entry,) = tmp_path.glob("*.safetensors")
    with torch.no_grad():
        model.cls_token += 1
    key = features_key(model_hash(model), clips, SCALE)
    for suffix in (".safetensors", ".json"):
        entry.with_suffix(suffix).rename(tmp_path / f"{key}{suffix}")
    with pytest.raises(ValueError, match="do not belong to these weights"):
        cached_features(model, clips, SCALE, folder=tmp_path)


def test_the_key_follows_weights_clips_and_labels(model, clip_folder, tmp_path):
    shutil.copytree(clip_folder / "class0", tmp_path / "class0")
    shutil.copytree(clip_folder / "class1", tmp_path / "class1")
    records = read_records(tmp_path)

    def key():
        return features_key(model_hash(model), DecodedClips(records), SCALE)

    first = key()
    assert key() == first
    assert features_key(model_hash(model), DecodedClips(records[::-1]), SCALE) != first
    assert features_key(model_hash(model), DecodedClips(records[1:]), SCALE) != first
    os.utime(records[0].path, ns=(1, 1))  # the file was changed
    assert key() != first
    cached = open_clips(records, cache=tmp_path / "cache", num_frames=4, size=16)
    smaller = open_clips(records, cache=tmp_path / "cache", num_frames=4, size=8)
    keys = {features_key(model_hash(model), clips, SCALE) for clips in (cached, smaller)}
    assert len(keys | {key()}) == 3  # frames of a cache are other frames


def test_the_models_name_follows_what_features_depend_on(model):
    first = model_hash(model)
    model.head = torch.nn.Linear(64, 5)
    assert model_hash(model) == first  # the head takes no part
    with torch.no_grad():
        model.layers[0].mixer.D[0] += 1e-6
    assert model_hash(model) != first


def test_manifest_is_plain_json(tmp_path):
    save_features(tmp_path / "f.safetensors", hand_made())
    manifest = json.loads((tmp_path / "f.json").read_text())
    assert manifest["paths"] == ["x.mp4", "y z.mp4", 'q".avi'] and manifest["model"] == "abcd"
