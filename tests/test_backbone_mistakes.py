"""What one architecture cannot do, or two cannot do together: one error, before the work, with the way out."""

import pytest
import torch
import toy_backbone
from small_backbones import small_config

from stretchysnake import cli
from stretchysnake.eval.activation_maps import activation_maps
from stretchysnake.eval.long_reading import LongReading
from stretchysnake.eval.long_video import embed_long
from stretchysnake.flexibility import Scale, sets_around, variant_named
from stretchysnake.models.accepted_scales import check_scales, refusal_of
from stretchysnake.models.architectures import ARCHITECTURES, build_model
from stretchysnake.models.weights.files import read_checkpoint, save_model
from stretchysnake.models.weights.loading import load_model
from stretchysnake.results.rows import Row, latest
from stretchysnake.train.loop import train
from stretchysnake.train.run import TrainRun


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """architecture -> a weights file of its small model with three classes, made when first asked for."""
    folder = tmp_path_factory.mktemp("files")

    def of(name):
        path = folder / f"{name}.safetensors"
        if not path.exists():
            torch.manual_seed(1)
            save_model(path, build_model(small_config(name, num_classes=3)))
        return str(path)

    return of


def run_of(name, data, out, **changes):
    config = small_config(name)
    sets = {"sets": sets_around(config.native)}
    return TrainRun(data=str(data), out=str(out), model=config, **{"steps": 1, **sets, **changes})


def says(capsys, *words):
    """Exit code 2 and its line of error."""
    assert cli.main([str(word) for word in words]) == 2
    return capsys.readouterr().err


def test_a_training_starts_from_weights_of_its_own_architecture(files, clip_folder, tmp_path):
    for theirs, names in (("hiera", "hiera-base, hiera-large"), ("videomamba", "videomamba-tiny")):
        run = run_of("timesformer", clip_folder, tmp_path / "out", weights=files(theirs))
        text = (
            f"are of {theirs}, and the model is timesformer; .*--model NAME; of {theirs}: {names}"
        )
        with pytest.raises(ValueError, match=text):
            train(run)


def test_a_file_of_no_model_lists_those_that_are_known(clip_folder, tmp_path):
    torch.save({"stem.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    listed = f"models that are known: {', '.join(ARCHITECTURES)}"
    for act in (
        lambda: load_model(tmp_path / "other.pth"),
        lambda: train(
            run_of("hiera", clip_folder, tmp_path / "out", weights=str(tmp_path / "other.pth"))
        ),
    ):
        with pytest.raises(ValueError, match=listed):
            act()


def test_a_head_of_other_classes_is_named(files, clip_folder, query_folder, tmp_path, capsys):
    """Three outputs without names against lists of two classes."""
    lists = []
    for folder in (clip_folder, query_folder):
        lists.append(tmp_path / f"{folder.name}.csv")
        lists[-1].write_text(
            "".join(f"{folder / f'class{c}' / '0.mp4'},class{c}\n" for c in (0, 1))
        )
    words = ["--gallery", lists[0], "--queries", lists[1], "--out", tmp_path / "rows.jsonl"]
    told = says(capsys, "evaluate", "--weights", files("evl"), *words, "--protocols", "[finetune]")
    assert "weights classify 3 classes" in told and "hold 2" in told


def test_a_cell_that_a_model_cannot_take_is_refused_before_the_first(
    files, clip_folder, query_folder, tmp_path, capsys
):
    """Hiera's grids come in mask units of 8 patches, 32 px here, and its T in steps of 2."""
    words = ["--gallery", clip_folder, "--queries", query_folder, "--out", tmp_path / "rows.jsonl"]
    told = says(
        capsys,
        "evaluate",
        "--weights",
        files("hiera"),
        *words,
        "--sizes",
        "[32,16]",
        "--frames",
        "[4]",
    )
    assert "hiera cannot take T=4 S=16 with patch 4: " in told
    assert "nearest: 32; choose other --frames or --sizes" in told
    assert not (tmp_path / "rows.jsonl").exists()
    told = says(capsys, "evaluate", "--weights", files("hiera"), *words, "--frames", "[4,3]")
    assert "hiera cannot take T=3 S=32" in told and not (tmp_path / "rows.jsonl").exists()


def test_videos_are_not_decoded_for_a_scale_that_cannot_be(files, clip_folder, tmp_path, capsys):
    words = ["--weights", files("hiera"), "--out", tmp_path / "index", "--size", 16]
    told = says(capsys, "embed", clip_folder, *words)
    assert "hiera cannot take T=4 S=16" in told and not (tmp_path / "index").exists()


def test_a_training_that_would_draw_such_a_scale_does_not_start(clip_folder, tmp_path):
    run = run_of("hiera", clip_folder, tmp_path / "out", variant="static_patch", steps=50)
    with pytest.raises(ValueError, match=r"hiera cannot take T=.*choose other sets \(--sets.sizes"):
        train(run)
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_a_scale_that_fits_is_no_refusal_and_costs_no_memory():
    config = small_config("hiera")
    check_scales(config, [Scale(4, 32, 4), Scale(64, 448, 7)], way_out="-")
    assert refusal_of(config, Scale(6, 64, 8)) == ""


@pytest.mark.parametrize(
    ("verb", "more", "scale"),
    [
        ("embed", ["--frames", 10**20], f"T={10**20} S=32"),
        ("embed", ["--size", 10**20], f"T=4 S={10**20}"),
        ("visualize", ["--frames", 10**8], f"T={10**8} S=16"),
        ("long", ["--frames", 4, "--size", 10**20], f"T=1 S={10**20}"),
    ],
)
def test_clips_of_more_pixels_than_can_be_are_refused(
    files, clip_folder, tmp_path, capsys, verb, more, scale
):
    words = [clip_folder / "class0", "--weights", files("videomamba"), "--out", tmp_path / "out"]
    told = says(capsys, verb, *words, *more)
    assert f"videomamba cannot take {scale} with patch" in told
    assert "a clip may have at most 4,294,967,296 pixels" in told and "Traceback" not in told
    assert not (tmp_path / "out").exists()


def test_an_index_holds_one_architecture(files, clip_folder, tmp_path, capsys):
    index, videos = tmp_path / "index", clip_folder / "class0"
    assert cli.main(["embed", str(videos), "--weights", files("evl"), "--out", str(index)]) == 0
    capsys.readouterr()
    told = says(capsys, "embed", videos, "--weights", files("aim"), "--out", index)
    assert "architecture evl against aim" in told and "choose another folder" in told
    told = says(capsys, "search", index, videos / "0.mp4", "--weights", files("aim"))
    assert "aim, SHA-256" in told and "are not the ones of" in told and "(evl, " in told
    other = tmp_path / "other"
    assert cli.main(["embed", str(videos), "--weights", files("aim"), "--out", str(other)]) == 0
    with pytest.raises(
        ValueError, match=r"architecture evl against aim.*embed both with one model"
    ):
        from stretchysnake.search.query import search

        search([str(index), str(other)], videos / "0.mp4")


def test_long_videos_need_a_carried_state(files, clip_folder, tmp_path):
    with pytest.raises(ValueError, match=r"recurrent model; hiera is none: .*embed --window"):
        embed_long(
            [str(clip_folder / "class0" / "0.mp4")],
            weights=files("hiera"),
            reading=LongReading(num_frames=8),
        )


def test_maps_need_a_grid_and_a_scale_before_a_video_is_read(monkeypatch):
    toy_backbone.install(monkeypatch)
    for config, sizes, text in (
        (
            toy_backbone.ToyConfig(),
            [16],
            r"grid of tokens at the end; toy has none: choose weights",
        ),
        (
            small_config("hiera"),
            [32, 16],
            r"hiera cannot take T=4 S=16 .*choose other --sizes or --frames",
        ),
    ):
        subjects = {
            "one": (build_model(config), variant_named("vanilla").using(sets_around(config.native)))
        }
        maps = activation_maps(subjects, ["not there.mp4"], sizes=sizes, num_frames=4)
        with pytest.raises(ValueError, match=text):
            next(maps)


def test_rows_of_two_architectures_under_one_name_are_told_apart():
    row = Row(
        run_id="a", protocol="retrieval", dataset="d", model="vanilla", seed=0, num_frames=8, size=32, patch_size=8,
        metric="top1", value=0.5, num_queries=2, num_expected=2, num_gallery=2, gflops=None, milliseconds=None,
        trained=True, native=True, weights="1", architecture="hiera",
    )  # fmt: skip
    from dataclasses import replace

    other = replace(row, run_id="b", weights="2", architecture="evl")
    with pytest.raises(
        ValueError, match=r"1 \(hiera, run a\) and 2 \(evl, run b\); .*--model NAME"
    ):
        latest([row, other])


def clip_and_decoder(folder):
    """EVL's file without CLIP's tower, and the tower under OpenAI's names, made from one model; its logits."""
    torch.manual_seed(5)
    config = small_config("evl", num_classes=3)
    model = build_model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    state = model.state_dict()
    own = {f"module.{n}": t for n, t in state.items() if not n.startswith("clip.")}
    torch.save({"model": own}, folder / "evl.pth")
    tower = {n.removeprefix("clip."): t for n, t in state.items() if n.startswith("clip.")}
    (folder / "elsewhere").mkdir()
    torch.save({**tower, "text_projection": torch.zeros(2)}, folder / "elsewhere" / "tower.pt")
    return model


def test_one_converted_file_holds_the_decoder_and_clips_tower(tmp_path, capsys):
    model = clip_and_decoder(tmp_path)
    out = tmp_path / "whole.safetensors"
    told = says(capsys, "convert", tmp_path / "evl.pth", "--out", out)
    assert (
        "CLIP.pt beside this file, or join both into one: stretchysnake convert FILE --clip" in told
    )
    words = [
        "convert",
        tmp_path / "evl.pth",
        "--clip",
        tmp_path / "elsewhere" / "tower.pt",
        "--out",
        out,
    ]
    assert cli.main(list(map(str, words))) == 0
    card = read_checkpoint(out)[1]["run"]["card"]
    assert card["clip"]["file"] == "tower.pt" and len(card["clip"]["sha256"]) == 64
    loaded, _ = load_model(out)
    video = torch.randn(1, 3, 4, 32, 32)
    heads = {"num_heads": 2, "decoder_heads": 2}  # no file says them; of 16 channels one is taken
    assert (loaded.config.num_heads, loaded.config.decoder_heads) == (1, 1)
    whole = load_model(tmp_path / "evl.pth", clip=tmp_path / "elsewhere" / "tower.pt", **heads)[0]
    with torch.no_grad():
        assert torch.equal(whole(video), model(video))
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[k], t) for k, t in model.state_dict().items())


def test_clips_file_is_found_beside_the_one_that_leaves_it_out(tmp_path):
    model = clip_and_decoder(tmp_path)
    (tmp_path / "elsewhere" / "tower.pt").rename(tmp_path / "CLIP.pt")
    loaded, notes = load_model(tmp_path / "evl.pth")
    assert any(
        note.startswith("CLIP's visual tower taken from") and "CLIP.pt" in note for note in notes
    )
    key = "clip.visual.conv1.weight"
    assert torch.equal(loaded.state_dict()[key], model.state_dict()[key])


def test_the_models_scale_is_what_the_sets_must_say():
    with pytest.raises(
        ValueError, match=r"sets.native \(32 px, patch 8\) must equal the model's .*sets_around"
    ):
        TrainRun(data="-", out="-", model=toy_backbone.ToyConfig(image_size=16))
