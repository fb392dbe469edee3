"""`stretchysnake train --model NAME`: its fields, its sets, recipes and files with it, and what is said of mistakes."""

import contextlib
import io
import re

import pytest

from stretchysnake import cli
from stretchysnake.cli.options import parsed
from stretchysnake.flexibility import PAPER, Scale, sets_around
from stretchysnake.models.architectures import ARCHITECTURES, config_named, model_names
from stretchysnake.recipes.named import recipe_named
from stretchysnake.train.run import TrainRun


def run_of(*words, defaults=None):
    words = ["--data", "clips", "--out", "out", *words]
    return parsed("train", TrainRun, "-", words, defaults=defaults)[0]


@pytest.mark.parametrize(
    "name", ["hiera-base", "timesformer-hr", "mvit", "uniformer-nano", "videomamba-tiny"]
)
def test_a_name_brings_its_fields_and_sets(name):
    run = run_of("--model", name)
    assert run.model == config_named(name, num_classes=0)
    assert run.sets == sets_around(run.model.native) and run.sets.native == run.model.native
    assert run == run_of(f"--model={name}")


def test_fields_of_that_model_are_options():
    run = run_of("--model", "hiera-base", "--model.embed_dim", "32", "--model.depths", "[1,1,2,1]")
    assert (run.model.embed_dim, run.model.depths, run.model.architecture) == (
        32,
        (1, 1, 2, 1),
        "hiera",
    )


def test_without_a_name_the_recipes_model_stays():
    assert run_of() == TrainRun(data="clips", out="out")


def test_a_recipe_takes_another_model_and_keeps_the_rest():
    defaults = recipe_named("pretrain_static_tokens")
    run = run_of("--model", "timesformer-base", defaults=defaults)
    assert run.model == config_named("timesformer-base", num_classes=400)
    assert run.sets == sets_around(Scale(8, 224, 16)) and run.sets.sizes == PAPER.sizes
    assert (run.variant, run.optim, run.steps) == (defaults.variant, defaults.optim, defaults.steps)
    assert run_of(defaults=defaults).model == defaults.model


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_printed_config_is_read_back_as_the_same_run(name, tmp_path):
    named = next(one for one in model_names() if one.startswith(name.replace("_", "-") + "-"))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as ended:
        run_of("--model", named, "--steps", "7", "--print_config")
    assert ended.value.code == 0
    (tmp_path / "run.yaml").write_text(printed.getvalue())
    found, _ = parsed("train", TrainRun, "-", ["--config", str(tmp_path / "run.yaml")])
    assert found == run_of("--model", named, "--steps", "7")
    assert found.model.architecture == name and found.steps == 7


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--model", "hiera-bse"], r"model \(hiera-bse\) is not known; did you mean: hiera-base"),
        (["--model", "zzzz"], r"model \(zzzz\) is not known; names: videomamba-tiny, .*hiera-base"),
        (
            ["--model", "hiera-base", "--sets.native.size", "96"],
            r"sets.native \(96 px, patch 4\) must equal the model's image_size \(224\) .*--sets.native.size",
        ),
    ],
)
def test_mistakes_say_what_to_do(words, text, capsys):
    assert cli.main(["train", "--data", "clips", "--out", "out", *words]) == 2
    told = capsys.readouterr().err
    assert re.search(text, told), told
    assert "Traceback" not in told


@pytest.mark.parametrize("verb", ["train", "embed"])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"steps: [1,\nmodel: }", "while parsing a flow node"),
        (b"\xff\xfe\xfa", "can't decode byte 0xff"),
        (b"steps: 1\x07", "special characters are not allowed"),
    ],
)
def test_a_config_that_is_no_yaml_is_one_line_with_its_name(verb, content, text, tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    assert cli.main([verb, "--config", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: config ({path}) must be a YAML file") and text in line


def test_a_field_of_another_model_is_refused(capsys):
    with contextlib.suppress(SystemExit):
        assert (
            cli.main(
                [
                    "train",
                    "--data",
                    "c",
                    "--out",
                    "o",
                    "--model",
                    "hiera-base",
                    "--model.state_size",
                    "8",
                ]
            )
            == 2
        )
    assert "state_size" in capsys.readouterr().err
