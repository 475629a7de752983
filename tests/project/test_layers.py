"""Who may import whom, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.project.files import module_of, package_files

LAYERS = ("core", ("proof", "tasks"), "dialects", ("passes", "codegen"), "runtime")
"""Lowest first; what is named together does not know each other. Everything else of mpk_ir is above them."""

HEAVY = {"torch", "cuda", "transformers", "matplotlib", "safetensors", "tokenizers"}
"""Imported where they are used, inside functions."""

FORBIDDEN = {
    "core": {"xdsl"},
    "proof": {"xdsl"},
    "tasks": {"xdsl"},
    "runtime": {"xdsl", "mpk_ir.dialects", "mpk_ir.passes"},
}
"""Below `Program` nothing needs the compiler."""


@dataclass(frozen=True)
class Import:
    module: str
    line: int
    at_import_time: bool


def rank(layer: str) -> int:
    for index, names in enumerate(LAYERS):
        if layer in ((names,) if isinstance(names, str) else names):
            return index
    return len(LAYERS)


def layer_of(module: str) -> str:
    return module.split(".")[1] if module.count(".") else ""


def imports(path: Path) -> list[Import]:
    tree = ast.parse(path.read_text())
    return list(_imports(tree, module_of(path), path.name == "__init__.py", at_import_time=True))


def _imports(node: ast.AST, module: str, is_package: bool, *, at_import_time: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, at_import_time) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = _resolve(child, module, is_package)
            names = [f"{base}.{alias.name}" for alias in child.names] if base == "mpk_ir" else [base]
            yield from (Import(name, child.lineno, at_import_time) for name in names)
        else:
            deferred = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or _is_type_checking(child)
            yield from _imports(child, module, is_package, at_import_time=at_import_time and not deferred)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _resolve(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    base = parts[: len(parts) - node.level + is_package]
    return ".".join([*base, *([node.module] if node.module else [])])


FILES = package_files()


def test_the_files_are_found():
    found = {layer_of(module_of(path)) for path in FILES}
    assert {"core", "tasks", "dialects", "passes", "codegen", "runtime", "opt"} <= found


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_module_imports_only_its_own_layer_and_lower_ones(path: Path):
    own = layer_of(module_of(path))
    for one in imports(path):
        other = layer_of(one.module)
        if not one.module.startswith("mpk_ir") or rank(own) == len(LAYERS) or other in (own, "__doc__"):
            continue
        assert rank(other) < rank(own), f"{path.name}:{one.line}: {own} imports {one.module}, a layer not below it"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_heavy_packages_are_imported_inside_functions(path: Path):
    for one in imports(path):
        heavy = one.module.split(".")[0] in HEAVY
        assert not (heavy and one.at_import_time), f"{path.name}:{one.line}: {one.module} is imported with the module"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_layers_below_the_program_do_not_need_the_compiler(path: Path):
    for one in imports(path):
        for name in FORBIDDEN.get(layer_of(module_of(path)), ()):
            assert not f"{one.module}.".startswith(f"{name}."), f"{path.name}:{one.line}: imports {one.module}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_the_package_refers_to_itself_by_relative_imports(path: Path):
    tree = ast.parse(path.read_text())
    absolute = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "mpk_ir"
    ]
    assert not absolute, f"{path.name}:{absolute}"


def test_the_check_sees_an_upward_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import tests.project.files as files

    monkeypatch.setattr(files, "ROOT", tmp_path)
    bad = tmp_path / "passes" / "tg" / "bad.py"
    bad.parent.mkdir(parents=True)
    bad.write_text("from ...codegen.program import Program\nimport torch\n\ndef f():\n    import cuda\n")
    found = [(one.module, one.at_import_time) for one in imports(bad)]
    assert found == [("mpk_ir.codegen.program", True), ("torch", True), ("cuda", False)]
    assert rank("codegen") == rank("passes")
