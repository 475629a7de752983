"""The cache of planned steps: planned once per distinct input, the same program after, safe between processes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpk_ir import program_cache
from mpk_ir.bench.shapes import shape_config
from mpk_ir.core.ranks import Parallel
from mpk_ir.core.target import H200, SIM, target_of
from mpk_ir.frontend import ModelConfig, StepOptions
from mpk_ir.program_cache import ProgramCache, code_digest
from mpk_ir.runtime.disk_cache import DiskCache
from mpk_ir.tasks import BUILTIN_KINDS
from tests.project.files import ROOT, package_files

CONFIG = shape_config("tiny")
OPTIONS = StepOptions(1, 8, 64, 16)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProgramCache:
    """In a process without extensions, whatever other tests registered."""
    monkeypatch.setattr(program_cache, "registered_kinds", lambda: BUILTIN_KINDS)
    return ProgramCache(DiskCache(tmp_path))


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was planned so far; the plan is always that of one step, made once."""
    asked: list[tuple[Any, ...]] = []
    (program,) = [program_cache._compiled(CONFIG, SIM, OPTIONS, Parallel(), ())]  # pyright: ignore[reportPrivateUsage]

    def compiled(*given: Any) -> Any:
        asked.append(given)
        return program

    monkeypatch.setattr(program_cache, "_compiled", compiled)
    return asked


def test_a_second_step_is_the_first_read_again(cache: ProgramCache) -> None:
    first = cache.step(CONFIG, H200, OPTIONS)
    again = cache.step(CONFIG, H200, OPTIONS)
    assert again is not first
    assert again.files() == first.files()


def test_every_input_is_part_of_the_key(
    cache: ProgramCache, planned: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[ModelConfig, Any, StepOptions, Parallel]] = [
        (CONFIG, SIM, OPTIONS, Parallel()),
        (replace(CONFIG, norm_eps=1e-5), SIM, OPTIONS, Parallel()),
        (CONFIG, H200, OPTIONS, Parallel()),
        (CONFIG, SIM, replace(OPTIONS, max_length=128), Parallel()),
        (CONFIG, SIM, OPTIONS, Parallel(2)),
        (CONFIG, SIM, OPTIONS, Parallel(2, "push")),
    ]
    for _ in range(2):
        for step in steps:
            cache.step(*step)
    assert len(planned) == len(steps)
    monkeypatch.setattr(program_cache, "code_digest", lambda: "another version")
    cache.step(*steps[0])
    assert len(planned) == len(steps) + 1


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 4000])
def test_a_damaged_entry_is_planned_again(cache: ProgramCache, planned: list[tuple[Any, ...]], damage: bytes) -> None:
    cache.step(CONFIG, SIM, OPTIONS)
    (entry,) = cache.disk.folder.iterdir()
    entry.write_bytes(damage)
    cache.step(CONFIG, SIM, OPTIONS)
    cache.step(CONFIG, SIM, OPTIONS)
    assert len(planned) == 2


def test_what_others_have_a_part_in_is_not_kept(
    cache: ProgramCache, planned: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        cache.step(CONFIG, replace(target_of("h200"), task_overhead_us=0.1), OPTIONS)
    assert len(planned) == 2
    with monkeypatch.context() as patch:
        patch.setattr(program_cache, "entry_points", lambda group: ["an extension"])
        for _ in range(2):
            cache.step(CONFIG, SIM, OPTIONS)
    assert len(planned) == 4
    monkeypatch.setattr(program_cache, "registered_kinds", lambda: BUILTIN_KINDS[1:])
    for _ in range(2):
        cache.step(CONFIG, SIM, OPTIONS)
    assert len(planned) == 6
    assert not list(cache.disk.folder.iterdir())


def test_all_source_is_in_the_digest_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = list(program_cache._source_files())  # pyright: ignore[reportPrivateUsage]
    names = [name for name, _ in files]
    assert len(set(names)) == len(names)
    device_code = sorted((ROOT / "codegen" / "cuda").rglob("*.cuh"))
    assert {path.resolve() for _, path in files} == {path.resolve() for path in (*package_files(), *device_code)}
    (tmp_path / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(program_cache, "_source_files", lambda: [("/a.py", tmp_path / "a.py")])
    digests: list[str] = []
    for text in ("x = 1\n", "x = 2\n", "x = 1\n"):
        (tmp_path / "a.py").write_text(text)
        digests.append(code_digest.__wrapped__())
    assert digests[0] != digests[1]
    assert digests[0] == digests[2]


PROCESS = """
import sys
from pathlib import Path
from mpk_ir.bench.shapes import shape_config
from mpk_ir.core.target import H200
from mpk_ir.frontend import StepOptions
from mpk_ir.program_cache import ProgramCache
from mpk_ir.runtime.disk_cache import DiskCache
from mpk_ir.tasks import BUILTIN_KINDS
program = ProgramCache(DiskCache(Path(sys.argv[1]))).step(shape_config("tiny"), H200, StepOptions(1, 8, 64, 16))
print(program.digest(), "xdsl" in sys.modules)
"""


def test_processes_share_it_and_who_finds_a_plan_needs_no_compiler(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)]
    first = [process.communicate(timeout=60)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    later = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert {digest for digest, _ in first} == {later[0]}
    assert later[1] == "False"
    assert len(list(tmp_path.iterdir())) == 1
