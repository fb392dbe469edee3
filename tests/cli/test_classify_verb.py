"""`stretchysnake classify --weights`: lines, names, a page with the frames, and mistakes in one line."""

import re

import numpy as np
import pytest
import torch

from stretchysnake import VideoMamba, VideoMambaConfig, cli, save_model
from stretchysnake.data.decoding.video import write_video
from stretchysnake.report.pages.classes_page import ShownClasses, write_classes_page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A video, and a file called as a published one whose head answers class 207 whatever it sees."""
    folder = tmp_path_factory.mktemp("classify")
    rng = np.random.default_rng(0)
    write_video(folder / "<b>clip.mp4", rng.integers(0, 255, (12, 32, 48, 3), dtype=np.uint8))
    model = VideoMamba(VideoMambaConfig.named("nano", embed_dim=8, depth=1, num_classes=400)).eval()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
        model.head.bias[[207, 64]] = torch.tensor([7.0, 6.0])
    torch.save(model.state_dict(), folder / "videomamba_t16_k400_f8_res224.pth")
    save_model(folder / "unnamed.safetensors", model)
    return folder


def test_five_named_classes_with_probabilities_and_a_page_of_the_frames(folder, tmp_path, capsys):
    page, video = tmp_path / "page.html", str(folder / "<b>clip.mp4")
    words = ["--weights", str(folder / "videomamba_t16_k400_f8_res224.pth"), "--views", "2x3"]
    assert cli.main(["classify", video, *words, "--html", str(page)]) == 0
    told = capsys.readouterr()
    # e^7 and e^6 among 398 times e^0
    total = np.exp(7) + np.exp(6) + 398
    first, second = 100 * np.exp(7) / total, 100 * np.exp(6) / total
    line, said = told.out.splitlines()
    assert line.startswith(
        f"{video}: hoverboarding {first:.1f} %, hitting baseball {second:.1f} %, "
    )
    assert line.count(" %") == 5 and said == f"page: {page}"
    assert "class names: kinetics400-opengvlab" in told.err
    text = page.read_text()
    assert text.count("<img ") == text.count("data:image/jpeg;base64,") == 6
    assert "clip 2 of 2, crop 3 of 3" in text and f"hoverboarding <span>{first:.1f} %" in text
    assert "<b>" not in text and "%3Cb%3Eclip.mp4" in text and "http" not in text


def test_without_names_the_numbers_are_told_and_how_to_name_them(folder, tmp_path, capsys):
    words = [str(folder / "<b>clip.mp4"), "--weights", str(folder / "unnamed.safetensors"), "--top"]
    assert cli.main(["classify", *words, "2"]) == 0
    told = capsys.readouterr()
    assert "clip.mp4: class 207 " in told.out and told.out.count(" %") == 2
    assert "give --classes FILE (one name a line), or put that file beside them as classes.txt" in (
        told.err
    )
    (tmp_path / "mine.txt").write_text("\n".join(f"mine {n}" for n in range(400)))
    assert cli.main(["classify", *words, "1", "--classes", str(tmp_path / "mine.txt")]) == 0
    assert "mine 207 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "neither is given"),
        (["--weights", "{w}", "--model", "x"], "both are given"),
        (["--model", "x", "--classes", "y"], "name the outputs of --weights"),
        (["--weights", "{w}", "--views", "4x2"], "views (4x2) must be clips x crops, with 1 or 3"),
        (
            ["--weights", "{w}", "--views", "1x3", "--picture", "whole"],
            "views (1x3) cuts 3 squares",
        ),
        (["--weights", "{w}", "--classes", "ssv2"], "gives 174 names, and the weights have 400"),
        (["--weights", "{w}", "--top=0"], "k (0) must be at least 1"),
        (
            ["--weights", "gone.pth", "--html", "."],
            "html (.) must be a file to write, and is a folder",
        ),
        (["--weights", "{w}", "--rows", "r.jsonl"], "give --budget too"),
        (["--weights", "{w}", "--budget", "5 ms"], "needs --rows"),
    ],
)
def test_mistakes_are_one_line(folder, words, text, capsys):
    words = [word.format(w=folder / "unnamed.safetensors") for word in words]
    assert cli.main(["classify", str(folder / "<b>clip.mp4"), *words]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert text in said[-1] and said[-1].startswith("error: ")


def test_a_page_keeps_frames_while_it_stays_small_and_counts_the_rest(tmp_path):
    videos = [
        ShownClasses(path=f"/v/{n}.mp4", best=[("a", 1.0)], strips=[("clip 1 of 1", b"x" * 300)])
        for n in range(3)
    ]
    write_classes_page(tmp_path / "p.html", videos, facts=[], page_bytes=900)  # 400 each in base64
    text = (tmp_path / "p.html").read_text()
    assert text.count("<img ") == 2 and "frames of 1 videos are left out" in re.sub(
        r"\s+", " ", text
    )
