"""Shared by all tests: markers, Hypothesis profiles, and `.mlir` files with RUN lines as tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.lit import LitError, run_file, run_tool

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")

RunFilecheck = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = config.getoption("--slow") or os.environ.get("MPK_TEST_SLOW") == "1"
    gpu = shutil.which("nvidia-smi") is not None
    for item in items:
        if "slow" in item.keywords and not slow:
            item.add_marker(pytest.mark.skip(reason="slow: runs with --slow or MPK_TEST_SLOW=1"))
        if "gpu" in item.keywords and not gpu:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU; there is no nvidia-smi here"))


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> pytest.Collector | None:
    """Files under a folder called filecheck are tests by their RUN lines."""
    if file_path.suffix == ".mlir" and "filecheck" in file_path.parts:
        return MlirFile.from_parent(parent, path=file_path)
    return None


class MlirFile(pytest.File):
    """A file of IR; one test."""

    def collect(self) -> Iterable[pytest.Item]:
        yield MlirItem.from_parent(self, name="RUN")


class MlirItem(pytest.Item):
    """All RUN lines of a file."""

    def runtest(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            run_file(self.path, Path(scratch))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        if isinstance(excinfo.value, LitError):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{self.path.name}: RUN lines"


@pytest.fixture
def run_filecheck(tmp_path: Path) -> RunFilecheck:
    """`run_filecheck(text, pipeline, *flags)`: run mpk-opt over ``text`` and check its output against its comments."""

    def run(text: str, pipeline: str = "", *flags: str) -> None:
        file = tmp_path / "input.mlir"
        file.write_text(text)
        made = run_tool(["mpk-opt", str(file), "-p", pipeline, *flags])
        assert made.code == 0, made.err
        checked = run_tool(["filecheck", str(file)], made.out)
        assert checked.code == 0, checked.err + checked.out

    return run
