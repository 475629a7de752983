"""Files and functions stay small enough to read in one go."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.project.files import LINKED, ROOT, python_files

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 6

PYTHON = [path for path in python_files("mpk_ir", *LINKED, "tests", "examples", "docs") if not path.is_symlink()]
DEVICE_CODE = [*sorted((ROOT / "codegen").rglob("*.cuh")), *sorted((ROOT / "examples").rglob("*.cuh"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def too_long(tree: ast.AST) -> list[str]:
    return [
        f"{node.name}: {(node.end_lineno or 0) - node.lineno + 1} lines"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]


def too_many_parameters(tree: ast.AST) -> list[str]:
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            count = len([name for name in names if name not in ("self", "cls")])
            found += [f"{node.name}: {count} parameters"] if count > MAX_PARAMETERS else []
    return found


def test_there_is_something_to_measure():
    assert len(PYTHON) > 50
    assert len(DEVICE_CODE) > 5


@pytest.mark.parametrize("path", [*PYTHON, *DEVICE_CODE], ids=name_of)
def test_files_are_short(path: Path):
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_functions_are_short_and_take_few_parameters(path: Path):
    tree = ast.parse(path.read_text())
    assert too_long(tree) == []
    assert too_many_parameters(tree) == []


def test_the_limits_bite():
    body = "\n".join(["    pass"] * MAX_FUNCTION_LINES)
    tree = ast.parse(f"def f(a, b, c, *, d, e, g, h):\n{body}\n")
    assert too_long(tree) == ["f: 61 lines"]
    assert too_many_parameters(tree) == ["f: 7 parameters"]
