"""Features of clips: those of the model in evaluation, on the frames and pixels that evaluation takes, in order."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stretchysnake import Scale, VideoMamba, VideoMambaConfig, VideoRecord, read_records
from stretchysnake.data.clips.loader import DecodedClips
from stretchysnake.data.decoding.video import read_frames
from stretchysnake.eval.features.extraction import FeatureSet, check_labels, extract, model_hash
from stretchysnake.models.architectures import create_model

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SCALE = Scale(4, 48, 12)  # the videos' own size: nothing is resized


@pytest.fixture
def model():
    config = VideoMambaConfig.named("nano", embed_dim=16, depth=3, num_classes=3, drop_path=0.9)
    return VideoMamba(config).train()


def features_by_hand(model, path):
    """Four of twelve frames, the centres of quarters: 1, 4, 7, 10; pixels as ImageNet's."""
    frames = read_frames(path, [1, 4, 7, 10]) / 255
    video = torch.from_numpy(((frames - MEAN) / STD).transpose(3, 0, 1, 2)).float()[None]
    with torch.no_grad():
        return model.eval().features(video, SCALE.patch_size)[0]


def test_features_are_those_of_the_model_in_evaluation(model, clip_folder, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"")
    records = [replace(r, group=f"g{i}") for i, r in enumerate(read_records(clip_folder)[2:7])]
    records.insert(2, VideoRecord(str(tmp_path / "bad.mp4"), 1))
    found = extract(
        model, DecodedClips(records), SCALE, batch_size=2
    )  # the model is in training mode
    kept = records[:2] + records[3:]
    assert found.paths == [record.path for record in kept] and found.num_expected == 6
    assert found.labels.tolist() == [0, 0, 1, 1, 1] and found.groups == [r.group for r in kept]
    assert found.scale == SCALE and found.features.dtype == torch.float32
    for row, record in zip(found.features, kept, strict=True):
        torch.testing.assert_close(row, features_by_hand(model, record.path), rtol=1e-4, atol=1e-5)
    assert not found.features.is_inference() and not found.features.requires_grad


def test_hash_names_the_backbone_and_its_configuration(model):
    same = VideoMamba(model.config)
    same.load_state_dict(model.state_dict())
    with torch.no_grad():
        same.head.weight.add_(1)  # features do not depend on it
    assert model_hash(same) == model_hash(model)
    with torch.no_grad():
        same.layers[2].mixer.D[0] += 1e-6
    assert model_hash(same) != model_hash(model)
    other = VideoMamba(model.config.but(patch_resize="area"))
    other.load_state_dict(model.state_dict())
    assert model_hash(other) != model_hash(model)


def test_labels_of_queries_must_be_in_the_gallery():
    check_labels([0, 1], [1, 1])
    with pytest.raises(ValueError, match=r"labels \(2, 3\) of 3 queries"):
        check_labels([0, 1], [1, 2, 3, 3])


def test_features_that_are_not_finite_are_refused_by_their_path():
    features = torch.ones(3, 2)
    features[1, 1] = float("inf")
    with pytest.raises(ValueError, match=r"first in row 1 \(b\)"):
        FeatureSet(features, torch.zeros(3), [""] * 3, ["a", "b", "c"], SCALE, 3)


def test_the_hash_of_a_model_with_batch_norms_holds_their_statistics():
    model = create_model("uniformer-nano", num_classes=3)
    first = model_hash(model)
    with torch.no_grad():
        model(torch.rand(2, 3, 4, 16, 16))  # in training mode: the statistics move
    assert model_hash(model) != first
