"""Weights wherever a trainer put them: found where that is unambiguous, all else listed, nothing dropped unseen."""

import argparse
import collections
import re
import warnings

import pytest
import torch

from stretchysnake import VideoMamba, VideoMambaConfig, cli, load_model
from stretchysnake.models.weights.converting import convert
from stretchysnake.models.weights.files import find_weights, read_checkpoint

CONFIG = VideoMambaConfig(
    embed_dim=16, depth=2, patch_size=8, image_size=16, num_frames=2, num_classes=3
)


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(3)
    return {name: tensor.clone() for name, tensor in VideoMamba(CONFIG).state_dict().items()}


def under(prefix, state):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def other(state):
    return {name: tensor + 1 for name, tensor in state.items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in second)


ADAM = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1.0}]}
COUNTERS = {"total_ops": torch.zeros(1), "layers.0.mixer.total_params": torch.zeros(1)}
LAYOUTS = {
    "compiled": lambda s: {"model": under("_orig_mod.", s)},
    "compiled and distributed": lambda s: under("module._orig_mod.", s),
    "one layer compiled": lambda s: {
        name.replace("layers.1.", "layers.1._orig_mod."): t for name, t in s.items()
    },
    "sliced and recomputed": lambda s: {
        f"_fsdp_wrapped_module.{name}".replace("mixer.", "_checkpoint_wrapped_module.mixer."): t
        for name, t in s.items()
    },
    "slowfast": lambda s: {"epoch": 3, "model_state": s, "optimizer_state": ADAM, "cfg": "A: 1"},
    "lightning": lambda s: {"state_dict": under("model.", s), "epoch": 1, "callbacks": {"a": 1}},
    "mmaction": lambda s: {"meta": {"epoch": 1}, "state_dict": under("backbone.", s)},
    "encoder of something": lambda s: under("net.video.encoder.", s),
    "four deep": lambda s: {"a": {"b": {"c": {"d": s}}}},
    "tuple": lambda s: (s, ADAM),
    "ordered": lambda s: {"model": collections.OrderedDict(s), "args": argparse.Namespace(lr=1)},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_weights_are_found_under_what_trainers_wrap_around_them(state, tmp_path, layout):
    torch.save(layout(state), tmp_path / "w.pth")
    model, notes = load_model(tmp_path / "w.pth")
    assert same(model.state_dict(), state) and notes == []


@pytest.mark.parametrize(
    ("layout", "strays"),
    [
        (lambda s: {**under("model.", s), "criterion.weight": torch.ones(3)}, ["criterion.weight"]),
        (lambda s: {**s, "criterion.weight": torch.ones(3)}, ["criterion.weight"]),
        (lambda s: {**s, **COUNTERS}, [*COUNTERS]),
        (lambda s: {**under("module.", s), "n_averaged": torch.tensor(4)}, ["n_averaged"]),
        (lambda s: {**under("backbone.", s), "cls_head.fc.weight": torch.ones(3, 4)}, ["cls_head.fc.weight"]),
    ],
    ids=["beside a prefix", "beside bare names", "op counters", "average's counter", "another head"],
)  # fmt: skip
def test_strays_are_left_out_and_listed(state, tmp_path, capsys, layout, strays):
    torch.save({"state_dict": layout(state), "epoch": 2}, tmp_path / "w.pth")
    model, notes = load_model(tmp_path / "w.pth")
    assert same(model.state_dict(), state)
    assert notes == [f"left out, no part of the model: {', '.join(strays)}"]
    out = str(tmp_path / "out.safetensors")
    assert cli.main(["convert", str(tmp_path / "w.pth"), "--out", out]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("left out: ")] == [
        f"left out: {name}" for name in ["epoch", *strays]
    ]
    assert "changed: nothing; every tensor is bit for bit the file's" in said


def test_an_unknown_tensor_under_the_models_own_names_is_still_an_error(state, tmp_path):
    torch.save(under("model.", {**state, "layers.0.extra": torch.ones(1)}), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"unexpected layers\.0\.extra"):
        load_model(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("layout", "parts"),
    [
        (lambda m, e: {"model": m, "model_ema": e}, ("model", "model_ema")),
        (lambda m, e: {"ema": under("module.", e), "model_state": m}, ("model_state", "ema")),
        (lambda m, e: {"state_dict": {**under("student.", m), **under("teacher.", e)}},
         ("state_dict/student", "state_dict/teacher")),
        (lambda m, e: {**under("model.", m), **under("ema.model.", e)}, ("model", "ema.model")),
        (lambda m, e: {**m, **under("ema.", e)}, (".", "ema")),
    ],
    ids=["timm", "slowfast", "student and teacher", "prefix in prefix", "bare and ema"],
)  # fmt: skip
def test_of_a_model_and_its_average_the_model_is_taken_and_the_other_named(
    state, tmp_path, layout, parts
):
    path, out = tmp_path / "w.pth", tmp_path / "out.safetensors"
    torch.save(layout(state, other(state)), path)
    model, notes = load_model(path)
    assert same(model.state_dict(), state)
    assert notes == [
        f"taken: {parts[0]}; also in the file: {parts[1]} (stretchysnake convert --part NAME takes it)"
    ]
    assert cli.main(["convert", str(path), "--part", parts[1], "--out", str(out)]) == 0
    assert same(read_checkpoint(out)[0], other(state))
    assert read_checkpoint(out)[1]["run"]["card"]["part"] == parts[1]
    with pytest.raises(ValueError, match=rf"part \(x\) is not in .*; it holds: .*{parts[1]}"):
        convert(path, out, part="x")
    assert same(read_checkpoint(path, part=parts[0])[0], state)


def test_a_file_of_one_model_says_that_it_has_no_parts(state, tmp_path):
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"part \(x\) is not .* one model, at its top: leave part"):
        read_checkpoint(tmp_path / "w.pth", part="x")


def test_of_two_models_none_is_taken_unasked(state, tmp_path):
    torch.save({"generator": state, "critic": other(state)}, tmp_path / "w.pth")
    text = (
        r"several models: generator, critic; choose one with: stretchysnake convert .* --part gen"
    )
    with pytest.raises(ValueError, match=text):
        load_model(tmp_path / "w.pth")
    assert same(load_model(tmp_path / "w.pth", part="critic")[0].state_dict(), other(state))


def test_the_average_alone_is_taken(state, tmp_path):
    torch.save({"ema": state, "step": 3}, tmp_path / "w.pth")
    found = find_weights(tmp_path / "w.pth")[0]
    assert (found.part, found.left_out, found.notes) == ("ema", ["step"], [])


def test_a_name_that_two_wrappers_give_is_refused(state, tmp_path):
    torch.save({**state, "_orig_mod.norm_f.weight": torch.ones(16)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"holds norm_f\.weight twice, once as _orig_mod\.norm_f"):
        load_model(tmp_path / "w.pth")


def test_a_part_of_several_files_is_called_one(state, tmp_path):
    names = sorted(state)
    halves = (
        {name: state[name] for name in names if name < "layers.1"},
        {name: state[name] for name in names if name >= "layers.1"},
    )
    for number, half in enumerate(halves, 1):
        path = tmp_path / f"pytorch_model-0000{number}-of-00002.bin"
        torch.save(half, path)
        with pytest.raises(ValueError, match="part of the weights: join all parts into one file"):
            load_model(path)


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        (torch.float64, r"tensors of float64 rounded to float32: largest change \d\.\de-0[789]"),
        (torch.float16, "tensors of float16 held as float32: no value changed"),
        (torch.bfloat16, "tensors of bfloat16 held as float32: no value changed"),
    ],
)
def test_another_dtype_is_said_and_bit_for_bit_is_not(state, tmp_path, capsys, dtype, text):
    stored = {name: (tensor.double() / 3).to(dtype) for name, tensor in state.items()}
    torch.save(stored, tmp_path / "w.pth")
    out = tmp_path / "out.safetensors"
    assert cli.main(["convert", str(tmp_path / "w.pth"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "bit for bit" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("changed: ")]
    assert re.fullmatch(rf"changed: {len(state)} {text}", line), line
    written = read_checkpoint(out)[0]
    assert same(written, {name: tensor.float() for name, tensor in stored.items()})
    if dtype == torch.float64:
        largest = max(float((t.float().double() - t).abs().max()) for t in stored.values())
        assert line.endswith(f"{largest:.1e}")


def test_doubles_that_no_float_can_hold_are_refused(state, tmp_path):
    stored = {name: tensor.double() for name, tensor in state.items()}
    stored["norm_f.weight"][0] = 1e300
    torch.save(stored, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"norm_f\.weight holds .* non-finite"):
        load_model(tmp_path / "w.pth")


def test_a_verb_warns_of_what_was_left_out(state, tmp_path):
    from stretchysnake.eval.features.subject import read_subject

    torch.save({"model": state, "model_ema": other(state)}, tmp_path / "w.pth")
    with pytest.warns(UserWarning, match=r"w\.pth\): taken: model; also in the file: model_ema"):
        read_subject(tmp_path / "w.pth")
    torch.save({"model": state}, tmp_path / "w.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_subject(tmp_path / "w.pth")
