"""The directions drawn in docs/architecture.md, read from the source with ast."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from stretchysnake.models.architectures import ARCHITECTURES

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "stretchysnake"

# What each part may import from the package. A missing arrow is a rule, not an oversight.
LEAVES = {"flexibility", "ops", "ranks", "results", "shown", "whole_file"}
MAY_IMPORT = {
    "flexibility": set(),
    "ops": set(),
    "ranks": {"shown"},
    "shown": set(),
    "whole_file": set(),
    "results": set(),
    "models": {"ops", "flexibility", "shown", "whole_file"},
    "data": {
        "flexibility",
        "ranks",
        "results",
        "shown",
        "whole_file",
    },  # meets the models in a tensor and a patch size
    "train": {"eval", "data", "models"} | LEAVES,  # its dry run counts operations as eval does
    "eval": {"data", "models"} | LEAVES,  # measuring never trains
    "search": {"eval", "data", "models"} | LEAVES,  # nor searches
    "report": {"results", "shown", "whole_file"},  # figures are redrawn from rows on any laptop
    "recipes": {"search", "eval", "train", "data", "models", "report"} | LEAVES,
    "cli": {
        "recipes",
        "search",
        "eval",
        "train",
        "data",
        "models",
        "report",
    }
    | LEAVES,
    "__init__": {"cli", "data", "eval", "models", "search"} | LEAVES,
}

# models knows no variants: it reads T, H, W from the tensor; it takes the text of one error, and says its native scale.
MODELS_TAKE_FROM_FLEXIBILITY = {"Scale", "size_message"}

# Which file alone may import an outside package.
ONLY_HOME = {
    "av": {
        "data/decoding/video.py",
        "data/decoding/video_track.py",
        "data/decoding/pyav_frames.py",
        "data/decoding/video_writing.py",
    },
    "torchcodec": {"data/decoding/torchcodec_frames.py"},
    "triton": {
        "ops/triton/runtime.py",
        "ops/triton/arithmetic.py",
        "ops/selective_scan/triton_forward.py",
        "ops/selective_scan/triton_backward.py",
        "ops/causal_conv/triton_kernels.py",
    },
    "matplotlib": {"report/figures/picture.py"},
    "faiss": {"search/stores/collection.py", "search/stores/ivf.py"},
    "lancedb": {"search/stores/lance_tables.py"},
    "pyarrow": {"search/stores/lance_store.py"},
    "huggingface_hub": {"models/weights/published/hub.py"},
    "jinja2": {"report/pages/template.py"},
    "jsonargparse": {"cli/options.py"},
    "onnx": {"models/exporting.py"},
    "onnxruntime": {"models/exporting.py"},
    "onnxscript": {"models/exporting.py"},
    "sklearn": {"data/motion_digits.py", "eval/tsne.py"},
    "rich": {"cli/progress.py"},
    "tensorboard": {"train/watch/tensorboard.py"},
}

# What `import stretchysnake` must not load: these wait until they are used.
LOADED_LATER = [
    *(
        "av",
        "faiss",
        "huggingface_hub",
        "jinja2",
        "jsonargparse",
        "lancedb",
        "matplotlib",
        "onnx",
        "onnxruntime",
        "pyarrow",
        "rich",
        "sklearn",
        "tensorboard",
    ),
    "triton",
]

# Names that say nothing about what a file is for.
EMPTY_NAMES = {"utils", "util", "helpers", "common", "base", "misc", "registry"}

MOST_ENTRIES = 15

LONGEST_FILE = 330  # the aim is 300 lines; beyond this a file holds two concepts

FILES = sorted(PACKAGE.rglob("*.py"))


def inside(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def part(path: Path) -> str:
    return inside(path).split("/")[0].removesuffix(".py")


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))))


@cache
def imported_names(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name) of every import, also inside functions; relative ones made absolute."""
    names = []
    package = ["stretchysnake", *path.relative_to(PACKAGE).parent.parts]
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            names += [(node.lineno, f"{source}.{alias.name}") for alias in node.names]
    return names


def test_every_part_has_a_place_in_the_table():
    assert {part(path) for path in FILES} <= MAY_IMPORT.keys()


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_arrows_never_point_back(path):
    here = part(path)
    for line, name in imported_names(path):
        package, *rest = name.split(".")
        if package != "stretchysnake" or not rest:
            continue
        there = rest[0]
        if there == "__version__":
            continue
        assert there == here or there in MAY_IMPORT[here], (
            f"{inside(path)}:{line} imports {name}: {here} -> {there} is not an arrow; "
            f"{here} may import {sorted(MAY_IMPORT[here]) or 'nothing of the package'}"
        )


def test_no_circle():
    """Whoever imports, at the top of a file or inside a function, is imported by none of those it reaches."""
    modules = {
        ".".join(["stretchysnake", *path.relative_to(PACKAGE).with_suffix("").parts]): path
        for path in FILES
    }
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    arrows = {
        name: {there if there in modules else there.rpartition(".")[0] for _, there in imported_names(path)}
        & modules.keys()
        for name, path in modules.items()
    }  # fmt: skip
    for start in arrows:
        ahead, seen = list(arrows[start]), set()
        while ahead:
            here = ahead.pop()
            assert here != start, f"{start} imports itself by way of others: {sorted(seen)}"
            if here not in seen:
                seen.add(here)
                ahead += arrows[here]


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=inside)
def test_a_folder_fits_on_a_screen(folder):
    """Built libraries and caches do not count."""
    entries = [
        entry.name
        for entry in folder.iterdir()
        if entry.name != "__pycache__" and entry.suffix not in {".so", ".dylib", ".dll"}
    ]
    assert len(entries) <= MOST_ENTRIES, f"{folder}: {len(entries)} entries; part it by nouns"


def test_models_know_no_variants():
    for path in FILES:
        if part(path) != "models":
            continue
        for line, name in imported_names(path):
            if name.startswith("stretchysnake.flexibility"):
                taken = name.removeprefix("stretchysnake.flexibility").lstrip(".")
                assert taken in MODELS_TAKE_FROM_FLEXIBILITY, (
                    f"{inside(path)}:{line} takes {taken or 'all'} from flexibility; "
                    "models reads its scale from the tensor"
                )


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_only_models_know_an_architecture(path):
    """Others ask the protocol (models/backbone.py): none imports a model's module or asks which architecture it is."""
    if part(path) == "models":
        return
    homes = {
        f"models.{home}"
        for config, module, _ in ARCHITECTURES.values()
        for home in (config, module)
    }
    for line, name in imported_names(path):
        taken = name.removeprefix("stretchysnake.")
        assert not any(taken == home or taken.startswith(f"{home}.") for home in homes), (
            f"{inside(path)}:{line} imports {name}; ask what models/backbone.py lets every caller ask"
        )
    asked = [
        node.lineno
        for node in nodes(path)
        if isinstance(node, ast.Compare)
        and any(isinstance(side, ast.Attribute) and side.attr == "architecture" for side in ast.walk(node))
        and {side.value for side in ast.walk(node) if isinstance(side, ast.Constant)} & {*ARCHITECTURES}
    ]  # fmt: skip
    assert not asked, (
        f"{inside(path)}:{asked[0]} asks for one architecture; ask the protocol instead"
    )


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_outside_packages_stay_in_their_home(path):
    for line, name in imported_names(path):
        homes = ONLY_HOME.get(name.split(".")[0], {inside(path)})
        assert inside(path) in homes, f"{inside(path)}:{line} imports {name}; only {homes} may"
        if part(path) == "report":
            assert name.split(".")[0] != "torch", (
                f"{inside(path)}:{line}: report works without torch"
            )


# Where a machine keeps weights is no caller's business: whoever loads them by name finds the same folder.
READS_ONE_VARIABLE = "models/weights/published/cache.py"


def test_one_file_below_the_command_line_reads_one_variable():
    text = (PACKAGE / READS_ONE_VARIABLE).read_text(encoding="utf-8")
    assert text.count("environ") == text.count("os.environ.get(VARIABLE)") == 1
    assert 'VARIABLE = "STRETCHYSNAKE_WEIGHTS"\n' in text


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_only_the_command_line_reads_the_environment(path):
    if part(path) == "cli" or inside(path) == READS_ONE_VARIABLE:
        return
    reads = [
        node.lineno
        for node in nodes(path)
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    ]
    reads += [line for line, name in imported_names(path) if name in {"os.environ", "os.getenv"}]
    assert not reads, f"{inside(path)}:{reads[0]} reads the environment; pass the value from a verb"


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_a_file_is_one_concept(path):
    assert path.stem not in EMPTY_NAMES, f"{inside(path)}: name the noun or the act it holds"
    length = len(path.read_text(encoding="utf-8").splitlines())
    assert length <= LONGEST_FILE, f"{inside(path)} has {length} lines; split it by concept"


def test_importing_the_package_loads_only_what_it_needs():
    # torch may load some of them by itself; only what our import adds counts.
    script = (
        "import sys, torch, numpy, safetensors.torch; before = set(sys.modules); "
        "import stretchysnake; added = set(sys.modules) - before; "
        f"print(*sorted(added & set({LOADED_LATER!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
