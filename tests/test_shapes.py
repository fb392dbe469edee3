"""Shapes are written one way (docs/decisions.md, 2026-11-26), read from the sources with ast."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "stretchysnake"
FILES = sorted(
    path for folder in ("ops", "models", "eval/protocols") for path in (PACKAGE / folder).rglob("*.py")
)  # fmt: skip
NAME = r"[\w'⌈⌉²^/]+"
AXIS = rf"(?:\.\.\.|{NAME}(?: ?[-+·*] ?{NAME})*)"
SHAPE = re.compile(rf"\({AXIS},(?: {AXIS})?(?:, {AXIS})*\)|\bany shape\b")
"""(B, L, D), (n,), (..., C), (B, 1 + N, C), or the words."""
TENSOR = {"Tensor", "Tensor | None", "torch.Tensor", "torch.Tensor | None"}


def letters(text: str) -> set[str]:
    """Axes of one capital letter in the shapes of a text."""
    return {letter for shape in SHAPE.findall(text) for letter in re.findall(r"\b[A-Z]\b", shape)}


def functions_of_tensors(tree: ast.Module) -> list[ast.FunctionDef]:
    """Public functions of a module, one of whose parameters is a tensor."""
    return [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and any(
            argument.annotation is not None and ast.unparse(argument.annotation) in TENSOR
            for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        )
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_public_function_of_tensors_says_their_shapes_in_letters_of_its_file(path):
    source = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    legend = ast.get_docstring(tree) or ""
    for function in functions_of_tensors(tree):
        doc = ast.get_docstring(function) or ""
        body = lines[function.lineno - 1 : function.end_lineno]
        said = doc + "\n".join(line.partition("#")[2] for line in body)
        assert SHAPE.search(said), (
            f"{path.name}: {function.name} does not say the shape of a tensor"
        )
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            used = letters(ast.get_docstring(node) or "")
            absent = [one for one in sorted(used) if not re.search(rf"\b{one}\b", legend)]
            assert not absent, f"{path.name}: {node.name} uses {absent}; say them at the file's top"


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("x (B, L, D), labels (n,)", ["(B, L, D)", "(n,)"]),
        ("(B, 1 + N, C) of a table", ["(B, 1 + N, C)"]),
        ("weight (..., C) of any shape", ["(..., C)", "any shape"]),
        ("a sentence (in words, not axes) about B (any shape)", ["any shape"]),
    ],
)
def test_what_counts_as_a_shape(text, wanted):
    assert SHAPE.findall(text) == wanted
