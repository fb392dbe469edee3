"""Classes of videos by views and crops, against the same done by hand; names of a head from each of their sources."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_backbones import small_config

from stretchysnake import Scale, VideoMamba, VideoMambaConfig, save_model
from stretchysnake.data.benchmarks.class_names.orders import names_in_order
from stretchysnake.data.clips.clip_source import IN_THIS_PROCESS
from stretchysnake.data.clips.transforms import normalise
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.video import read_frames, write_video
from stretchysnake.data.records import VideoRecord
from stretchysnake.eval.protocols.classifier import classifier_of_weights
from stretchysnake.eval.protocols.head_classes import head_labels
from stretchysnake.eval.protocols.video_classes import classes_of
from stretchysnake.eval.sweeps.model_under_test import model_under_test
from stretchysnake.models.architectures import build_model


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """24 frames of 32 x 48 noise, so that every crop and every frame differs."""
    path = tmp_path_factory.mktemp("videos") / "noise.mp4"
    rng = np.random.default_rng(0)
    write_video(path, rng.integers(0, 255, (24, 32, 48, 3), dtype=np.uint8))
    return str(path)


def head_of(num_classes):
    model = VideoMamba(
        VideoMambaConfig.named("nano", embed_dim=16, depth=1, num_classes=num_classes)
    )
    with torch.no_grad():
        model.head.weight.mul_(
            40
        )  # apart enough that averages of probabilities and of logits differ
    return model.eval()


def test_probabilities_are_those_of_the_views_and_crops_averaged(video, tmp_path):
    model = head_of(5)
    save_model(tmp_path / "w.safetensors", model)
    classifier, source = classifier_of_weights(tmp_path / "w.safetensors")
    assert classifier.scale == Scale(8, 32, 8) and "do not say what their 5 outputs" in source
    options = {"limits": IN_THIS_PROCESS, "num_views": 2, "num_crops": 3}
    (found,) = classes_of(classifier, [video], **options)
    everything = torch.from_numpy(read_frames(video, range(24)))
    clips = []
    for view in range(
        2
    ):  # 4 v + 2 of each segment of 3 frames, in twelfths: 3 i + (2 v + 1) * 3 / 4
        chosen = everything[[3 * i + (2 * view + 1) * 3 // 4 for i in range(8)]]
        clips += [chosen[:, :, left : left + 32] for left in (0, 8, 16)]
    clips = torch.stack(clips)
    assert torch.equal(found.clips, clips)
    with torch.no_grad():
        by_hand = torch.cat([model(normalise(clip[None])) for clip in clips]).softmax(1).mean(0)
    torch.testing.assert_close(found.probabilities.float(), by_hand, atol=1e-5, rtol=1e-4)
    (whole,) = classes_of(classifier, [video], picture="whole", limits=IN_THIS_PROCESS)
    assert whole.clips.shape == (1, 8, 32, 32, 3)
    assert not torch.allclose(whole.probabilities, found.probabilities, atol=1e-4)


def test_a_bad_file_keeps_its_place_and_says_why(video, tmp_path):
    save_model(tmp_path / "w.safetensors", head_of(3))
    (tmp_path / "bad.mp4").write_bytes(b"\0" * 50)
    classifier, _ = classifier_of_weights(tmp_path / "w.safetensors")
    bad = str(tmp_path / "bad.mp4")
    first, second, third = classes_of(classifier, [video, bad, video], limits=IN_THIS_PROCESS)
    assert isinstance(second, DecodeError) and second.path == bad
    assert torch.equal(first.probabilities, third.probabilities)
    with torch.no_grad():
        classifier.model.head.bias[1] = float("nan")
    (lost,) = classes_of(classifier, [video], limits=IN_THIS_PROCESS)
    assert "class scores are not finite" in str(lost)


def test_names_are_the_users_then_the_headers_then_the_files_beside_then_the_publishers(tmp_path):
    model = head_of(10)
    official = Path(tmp_path, "videomamba_t16_breakfast_f32_res224.pth")
    torch.save({"model": model.state_dict()}, official)
    changed = {"num_frames": 4}

    def named(weights, **options):
        made, source = classifier_of_weights(weights, **options)
        return made.classes, source

    classes, source = named(official, **changed)
    assert classes == list(names_in_order("breakfast-vis4mer")) and "ViS4mer" in source
    card = {"file": official.name, "source": "not stated"}
    save_model(tmp_path / "converted.safetensors", model, card=card)
    assert named(tmp_path / "converted.safetensors")[0] == classes
    save_model(tmp_path / "other.safetensors", model)
    assert named(tmp_path / "other.safetensors")[0][7] == "class 7"
    (tmp_path / "classes.txt").write_text("\n".join("abcdefghij"))
    assert named(official)[0] == list("abcdefghij")
    save_model(tmp_path / "own.safetensors", model, classes=[f"own {n}" for n in range(10)])
    assert named(tmp_path / "own.safetensors") == (
        [f"own {n}" for n in range(10)], "the weights' header",
    )  # fmt: skip
    assert named(tmp_path / "own.safetensors", classes="breakfast")[0][1] == "coffee"


def test_an_official_head_is_measured_by_the_names_of_its_own_order(tmp_path):
    """Alphabetical lists number tea 9; the head that ViS4mer's lists trained answers it with output 2."""
    official = tmp_path / "videomamba_t16_breakfast_f32_res224.pth"
    torch.save(head_of(10).state_dict(), official)
    tested = model_under_test(official)
    dishes = names_in_order("breakfast")
    records = [VideoRecord(f"{name}.avi", label, name) for label, name in enumerate(dishes)]
    outputs, note = head_labels(tested.classes, 10, records, records)
    assert note == "" and dict(zip(dishes, outputs, strict=True))["tea"] == 2
    assert outputs == [0, 1, 4, 7, 8, 3, 9, 6, 5, 2]


def test_weights_without_a_head_say_what_to_do(tmp_path):
    save_model(tmp_path / "w.safetensors", head_of(3).__class__(
        VideoMambaConfig.named("nano", embed_dim=16, depth=1, num_classes=0)))  # fmt: skip
    with pytest.raises(ValueError, match=r"hold no classifier; .*stretchysnake finetune VIDEOS"):
        classifier_of_weights(tmp_path / "w.safetensors")
    save_model(tmp_path / "w.safetensors", head_of(3))
    with pytest.raises(ValueError, match=r"size \(33\) must be a multiple of patch_size \(8\)"):
        classifier_of_weights(tmp_path / "w.safetensors", size=33)


def test_weights_that_keep_shapes_are_asked_whether_they_can_before_a_video_is_read(tmp_path):
    """Hiera takes its square and no other shape."""
    config = small_config("hiera", image_size=64, num_classes=2)
    save_model(tmp_path / "w.safetensors", build_model(config), fit="keep")
    with pytest.raises(ValueError, match=r"fit \(keep\) gives clips of .* hiera cannot take: "):
        classifier_of_weights(tmp_path / "w.safetensors")
    save_model(tmp_path / "w.safetensors", build_model(config))
    assert classifier_of_weights(tmp_path / "w.safetensors")[0].fit == "square"
