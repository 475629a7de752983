"""One package from five folders: links, wheel, a single identity, names that clash with nobody's."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from subprocess import CompletedProcess, run

import pytest
from xdsl.universe import XDSL_UNIVERSE

from mpk_ir.dialects import ALL_DIALECTS
from mpk_ir.passes import PASSES
from mpk_ir.universe import ALL_TARGETS, MPK_UNIVERSE
from tests.project.files import LINKED, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that nothing is left in the checkout."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("mpk_ir", *LINKED):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    flags = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(out)]
    made = run([sys.executable, "-m", "pip", "wheel", *flags, str(copy)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as pip leaves it: the package and its entry points."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def python(code: str, site: Path, arguments: Sequence[str] = ()) -> CompletedProcess[str]:
    """Run ``code`` outside the checkout, with the package from ``site``."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r}); {code}", *arguments]
    return run(command, cwd=site, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", LINKED)
def test_the_four_folders_are_linked_into_the_package(name: str):
    link = ROOT / "mpk_ir" / name
    assert link.is_symlink(), f"mpk_ir/{name} must be a link to ../{name}; was the checkout made without links?"
    assert link.readlink() == Path("..", name)


@pytest.mark.parametrize("name", LINKED)
def test_a_folder_cannot_be_imported_as_a_package_of_its_own(name: str):
    done = run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "attempted relative import" in done.stderr


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"mpk_ir", f"mpk_ir-{_version()}.dist-info"}
    for name in ("py.typed", "dialects/tg/__init__.py", "passes/base.py", "runtime/simulator.py", "opt/main.py"):
        assert f"mpk_ir/{name}" in names
    device_code = {path.relative_to(ROOT) for path in (ROOT / "codegen").rglob("*.cuh")}
    assert {f"mpk_ir/{path}" for path in device_code} <= set(names)


def test_the_installed_package_lists_its_passes(site: Path):
    done = python("from mpk_ir.opt.main import main; print(main(['--list-passes']))", site)
    assert done.returncode == 0, done.stderr
    for name in PASSES:
        assert f"--{name} " in done.stdout


STOCK = """
from xdsl.xdsl_opt_main import xDSLOptMain
from mpk_ir.passes import PASSES
from mpk_ir.dialects import ALL_DIALECTS
for name in PASSES:
    tool = xDSLOptMain(args=["-p", name, sys.argv[1]])
    assert [one.name for one in tool.pipeline.passes] == [name]
    tool.run()
assert "cuda" in tool.available_targets
for name in ALL_DIALECTS:
    assert list(tool.ctx.get_dialect(name).operations), name
print("fine")
"""


def test_stock_xdsl_opt_runs_every_pass(site: Path):
    empty = site / "empty.mlir"
    empty.write_text("builtin.module {}\n")
    done = python(f"exec({STOCK!r})", site, [str(empty)])
    assert done.stdout.endswith("fine\n"), done.stderr


def test_the_universe_imports_nothing_heavy(site: Path):
    code = (
        "import mpk_ir.universe;"
        "heavy = {'torch', 'cuda', 'numpy', 'rich', 'mpk_ir.dialects.tg', 'mpk_ir.passes.base'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert python(code, site).stdout == "[]\n"


def test_our_names_are_not_xdsls():
    assert not set(ALL_DIALECTS) & set(XDSL_UNIVERSE.all_dialects)
    assert not set(PASSES) & set(XDSL_UNIVERSE.all_passes)
    assert not set(ALL_TARGETS) & set(XDSL_UNIVERSE.all_targets)


@pytest.mark.parametrize("name", ALL_DIALECTS)
def test_a_dialect_is_found_under_its_own_name(name: str):
    assert MPK_UNIVERSE.all_dialects[name]().name == name


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_is_found_under_its_own_name_and_shows_ir_before_and_after(name: str):
    cls = MPK_UNIVERSE.all_passes[name]()
    assert cls.name == name
    documentation = cls.__doc__ or ""
    shown = "Before" in documentation and "After" in documentation
    assert shown or name == "sm-verify", "the docstring of a pass shows the IR before and after; sm-verify changes none"


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_documents_its_options_and_statistics(name: str):
    cls = MPK_UNIVERSE.all_passes[name]()
    documentation = (cls.__doc__ or "") + (sys.modules[cls.__module__].__doc__ or "")
    source = inspect.getsource(sys.modules[cls.__module__])
    counted = re.findall(r"self\.count\(\"(\w+)\"", source)
    options = [option.name for option in fields(cls)]
    for word in (*counted, *options):
        assert re.search(rf"\b{word}\b", documentation), f"the docstring of {name} says nothing of {word}"


@pytest.mark.parametrize("name", ALL_TARGETS)
def test_a_target_is_found_under_its_own_name(name: str):
    assert MPK_UNIVERSE.all_targets[name]().name == name


def test_public_names_exist_and_cost_nothing_until_used():
    import mpk_ir

    for name in mpk_ir.__all__:
        assert getattr(mpk_ir, name) is not None
    code = "import mpk_ir, sys; print([m for m in sys.modules if m.startswith(('mpk_ir.', 'xdsl', 'numpy', 'torch'))])"
    assert run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False).stdout == "[]\n"


def _version() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_version_is_stated_once_and_again_the_same():
    import mpk_ir

    assert mpk_ir.__version__ == _version()
