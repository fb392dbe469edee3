"""Every verb that runs a model asks where: by its options, by every call that reads a model, and by what it refuses."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import torch

from stretchysnake import cli
from stretchysnake.cli.verbs import ROOMS, VERBS
from stretchysnake.eval.features.placement import Placement

PACKAGE = Path(cli.__file__).resolve().parents[1]

READERS = {"read_subject": 1, "model_under_test": None}
"""What gives a model to compute with, and the place of its placement among the arguments."""
RUN_NO_MODEL = {
    "report": "draws rows",
    "convert": "writes weights anew, computing nothing with them",
    "data": "reads videos and lists",
    "index": "tells of indexes and merges them",
    "weights": "fetches and checks files",
    "publish": "sends a folder",
    "doctor": "checks each backend on the device it is for",
    "completion": "prints a script",
}
WITHOUT_PRECISION = {
    "search": "the index says it",
    "export": "a program is in fp32",
    "quickstart": "a demonstration in fp32",
    "study": "its tables are of fp32; table2 has one",
}


def reached(module: str, seen: set[str]) -> set[str]:
    """The modules of the package that this one imports, inside functions too, and these again."""
    path = PACKAGE.parent / (module.replace(".", "/") + ".py")
    if module in seen or not path.is_file():
        return seen
    seen.add(module)
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stretchysnake"):
            for name in [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]:
                reached(name, seen)
    return seen


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def calls(path: Path) -> list[ast.Call]:
    return [node for node in nodes(path) if isinstance(node, ast.Call)]


def called(node: ast.Call) -> str:
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in RUN_NO_MODEL])
def test_a_verb_that_runs_a_model_has_the_options(verb, capsys):
    with pytest.raises(SystemExit):
        cli.main([verb, "--help"])
    helped = " ".join(capsys.readouterr().out.split())
    assert "--device DEVICE" in helped
    assert re.search(r'"cpu", "cuda".{,50} or e\.g\. "cuda:1"', helped)  # the words under the field
    assert ("--precision PRECISION" in helped) == (verb not in WITHOUT_PRECISION)


@pytest.mark.parametrize("verb", RUN_NO_MODEL)
def test_other_verbs_read_no_subject(verb):
    room = next(room for room, verbs in ROOMS.items() if verb in verbs)
    seen = reached(f"stretchysnake.cli.{room}.{verb}", set())
    assert not seen & {"stretchysnake.eval.features.subject", "stretchysnake.train.loop"}


def test_whoever_reads_a_model_says_where_it_goes():
    silent = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in calls(path):
            name = called(node)
            if name not in READERS:
                continue
            named = {keyword.arg for keyword in node.keywords}
            place = READERS[name]
            if "placement" not in named and (place is None or len(node.args) <= place):
                silent.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {name}")
    assert not silent, "give these a placement: " + ", ".join(silent)


BUILD_BY_THEMSELVES = {
    "cli/models/publish.py": "looks whether what is sent can be read",
    "eval/features/subject.py": "read_subject, which takes a placement",
    "eval/protocols/classifier.py": "a head for features that `embed` computes, on the CPU",
    "eval/sweeps/cost.py": "counts on meta tensors",
    "eval/sweeps/model_under_test.py": "the model under test with kernels resized otherwise, placed as it was",
    "recipes/shipping.py": "the features that shipped weights are checked by, on the CPU",
    "recipes/study/measuring.py": "a function of its own of that name, which takes a placement",
    "recipes/study/cost.py": "times a step on the CPU, for an estimate",
    "recipes/table2/demo.py": "writes random weights",
    "recipes/table2/table2.py": "looks at a file's config",
    "recipes/token_order.py": "reads the order of tokens of a tiny model",
    "train/checkpoints/state.py": "the average beside a placed model",
    "train/dry_run.py": "on meta tensors, and one step on the run's device",
    "train/loop.py": "moves it to the run's device",
}


def test_models_are_built_where_a_placement_is_known():
    """A new file here must ask for a device too, or say why it needs none."""
    makers = {"load_model", "model_of", "model_in_folder", "build_model", "create_model"}
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "models" not in path.relative_to(PACKAGE).parts[:1]
        if any(called(node) in makers for node in calls(path))
    }
    assert found == set(BUILD_BY_THEMSELVES)


def test_models_compute_inside_inference_and_nowhere_else():
    """`torch.inference_mode` of one's own, in eval/ and search/, would compute in fp32 whatever was asked for."""
    allowed = {
        "eval/features/placed_model.py",
        "eval/protocols/classifier.py",
    }  # a head, on features
    found = {
        path.relative_to(PACKAGE).as_posix()
        for folder in ("eval", "search")
        for path in (PACKAGE / folder).rglob("*.py")
        if any(called(node) == "inference_mode" for node in calls(path))
    }
    assert found <= allowed


@pytest.fixture(scope="module")
def asked(trained, clip_folder, tmp_path_factory):
    """verb -> its words, on small files that are all there."""
    from stretchysnake.recipes.finetuning import finetune_folder
    from stretchysnake.search.embed import embed_into

    folder, weights, video = (
        tmp_path_factory.mktemp("asked"),
        trained[1].weights,
        str(clip_folder / "class0" / "0.mp4"),
    )
    cell = {"num_frames": 4, "size": 16}
    embed_into(
        folder / "index", clip_folder, weights=weights, placement=Placement(device="cpu"), **cell
    )
    finetune_folder(
        str(clip_folder), weights=weights, out=str(folder / "classes"), method="knn",
        placement=Placement(device="cpu"), **cell,
    )  # fmt: skip
    lists = ["--gallery", str(clip_folder), "--queries", str(clip_folder)]
    return {
        "train": ["--data", str(clip_folder), "--out", f"{folder}/train", "--steps", "1"],
        "finetune": [str(clip_folder), "--weights", weights, "--out", f"{folder}/fine"],
        "export": [weights, "--out", f"{folder}/model.pt2"],
        "evaluate": ["--weights", weights, *lists, "--out", f"{folder}/rows.jsonl", "--allow_self", "true"],
        "plan": ["--weights", weights, *lists, "--rows", f"{folder}/plan.jsonl", "--budget", "1 TFLOPs"],
        "visualize": [video, "--weights", weights, "--out", f"{folder}/seen"],
        "embed": [video, "--weights", weights, "--out", f"{folder}/another"],
        "long": [video, "--weights", weights, "--out", f"{folder}/long", "--frames", "4"],
        "search": [f"{folder}/index", video, "--html", ""],
        "classify": [video, "--model", f"{folder}/classes"],
    }  # fmt: skip


VERBS_TRIED = [
    "train",
    "finetune",
    "export",
    "evaluate",
    "plan",
    "visualize",
    "embed",
    "long",
    "search",
    "classify",
]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
@pytest.mark.parametrize("verb", VERBS_TRIED)
def test_an_absent_device_is_one_line(verb, asked, capsys):
    assert cli.main([verb, *asked[verb], "--device", "cuda:1"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("error: device (cuda:1) is not there: this torch sees no GPU")
    assert len(said) == 1 or not any("Traceback" in line for line in said)


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("finetune", "--frames 0"),
        ("export", "--frames 0"),
        ("evaluate", "--frames [0]"),
        ("evaluate", "--frames []"),
        ("evaluate", "--sizes [-32]"),
        ("plan", "--frames []"),
        ("plan", "--sizes []"),
        ("visualize", "--frames 0"),
        ("visualize", "--sizes []"),
        ("embed", "--frames 0"),
        ("embed", "--size 0"),
        ("long", "--window 0"),
        ("long", "--size 0"),
        ("classify", "--frames 0"),
    ],
)
def test_none_at_all_is_refused_and_not_the_native_number(verb, more, asked, capsys):
    words = asked[verb]
    if verb == "classify":  # one whose scale may be chosen
        words = [words[0], "--weights", "stretchysnake-nano"]
    assert cli.main([verb, *words, *more.split(), "--device", "cpu"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    name = more.split()[0].strip("-").replace("frames", "(num_)?frames").replace("sizes", "sizes?")
    assert re.match(rf"error: {name} \((0|-32|none|\[\])\) must ", said)


@pytest.mark.parametrize(
    ("verb", "more", "text"),
    [
        ("evaluate", "--memory_limit_gib -1", "memory_limit_gib (-1.0) must be positive, or null"),
        ("evaluate", "--verify_cache true", "verify_cache (True) is used with cache alone; give"),
        ("evaluate", "--cache_size 99", "cache_size (99) is used with cache alone; give cache too"),
        ("train", "--cache_frames 99", "cache_frames (99) is used with cache alone"),
        ("train", "--held_out_every 9", "held_out_every (9) is used with held_out alone"),
        *(
            (verb, "--timeout_seconds -5 --num_workers 0", "timeout_seconds (-5.0) must be more")
            for verb in ("classify", "embed", "evaluate", "finetune", "long", "visualize")
        ),
    ],
)
def test_what_would_have_no_effect_is_refused(verb, more, text, asked, capsys):
    assert cli.main([verb, *asked[verb], *more.split(), "--device", "cpu"]) == 2
    assert f"error: {text}" in capsys.readouterr().err.strip().splitlines()[-1]


def test_every_verb_with_a_device_is_tried_or_made_of_those_that_are():
    assert {*VERBS} - {*RUN_NO_MODEL} - {*VERBS_TRIED} == {"quickstart", "study"}


@pytest.mark.parametrize("verb", ["embed", "evaluate"])
def test_a_device_that_is_none_is_refused(verb, asked, capsys):
    assert cli.main([verb, *asked[verb], "--device", "gpu"]) == 2
    assert "device ('gpu') must be one of: auto, cpu, cuda, or one GPU" in capsys.readouterr().err


def test_precision_is_part_of_an_index_and_of_what_compares_features(asked, capsys):
    words = asked["embed"]
    assert cli.main(["embed", *words, "--device", "cpu", "--precision", "bf16"]) == 0
    assert cli.main(["embed", *words, "--device", "cpu"]) == 2
    assert "of other settings (precision bf16 against fp32)" in capsys.readouterr().err
    index = words[words.index("--out") + 1]
    assert cli.main(["search", index, words[0], "--html", "", "--device", "cpu"]) == 0
    found = capsys.readouterr().out
    assert "1.000" in found  # the query is computed in bf16 too
    assert cli.main(["search", index, asked["search"][0], words[0], "--html", ""]) == 2
    assert "precision bf16 against fp32" in capsys.readouterr().err
    assert cli.main(["classify", *asked["classify"], "--precision", "bf16"]) == 2
    assert (
        "precision (bf16) must be that of the features this knn model was made of (fp32)"
        in capsys.readouterr().err
    )
