"""The kernel cache: one compile per distinct input, safe between processes, healing, bounded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mpk_ir.core.errors import KernelCompileError
from mpk_ir.runtime import cache as cache_module
from mpk_ir.runtime.cache import KernelCache, default_folder
from mpk_ir.runtime.nvrtc import CompiledKernel, NvrtcOptions, Resources


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources compiled so far; compiling is replaced by something quick."""
    sources: list[str] = []

    def compile_source(source: str, *_: object) -> CompiledKernel:
        sources.append(source)
        return CompiledKernel(b"code\nof " + source.encode() * 100, "log", {"k": Resources(1, 2, 3, 4)}, 0.5)

    monkeypatch.setattr(cache_module, "compile_source", compile_source)
    return sources


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_a_second_compile_reads_the_first(tmp_path: Path, compiled: list[str]) -> None:
    kernels = [KernelCache(tmp_path).compile("a", {"h": "1"}, "sm_90a") for _ in range(2)]
    assert compiled == ["a"]
    assert kernels[0] == kernels[1]
    assert kernels[1].resources["k"].spill_bytes == 4


def test_every_input_is_part_of_the_key(tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    cache = KernelCache(tmp_path)
    cache.compile("a", {"h": "1", "i": "2"}, "sm_90a")
    cache.compile("a", {"h": "12", "i": ""}, "sm_90a")
    cache.compile("a", {"h": "1", "j": "2"}, "sm_90a")
    cache.compile("a", {"h": "1", "i": "2"}, "sm_100a")
    cache.compile("a", {"h": "1", "i": "2"}, "sm_90a", NvrtcOptions(line_info=True))
    monkeypatch.setattr(cache_module, "nvrtc_version", lambda: (99, 0))
    cache.compile("a", {"h": "1", "i": "2"}, "sm_90a")
    assert len(compiled) == 6
    cache.compile("a", {"i": "2", "h": "1"}, "sm_90a")
    assert len(compiled) == 6, "the order of headers is not"


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 4000])
def test_a_damaged_entry_is_compiled_again(tmp_path: Path, compiled: list[str], damage: bytes) -> None:
    cache = KernelCache(tmp_path)
    good = cache.compile("a", {}, "sm_90a")
    (path,) = entries(tmp_path)
    path.write_bytes(damage)
    assert cache.compile("a", {}, "sm_90a") == good
    assert cache.compile("a", {}, "sm_90a") == good
    assert compiled == ["a", "a"]


def test_the_least_recently_used_goes_first(tmp_path: Path, compiled: list[str]) -> None:
    KernelCache(tmp_path).compile("a", {}, "sm_90a")
    limit = int(2.5 * entries(tmp_path)[0].stat().st_size)
    cache = KernelCache(tmp_path, limit_bytes=limit)
    os.utime(entries(tmp_path)[0], (1, 1))
    cache.compile("b", {}, "sm_90a")
    cache.compile("a", {}, "sm_90a")  # now used more recently than b
    (older,) = [path for path in entries(tmp_path) if b"bbb" in path.read_bytes()]
    os.utime(older, (2, 2))
    cache.compile("c", {}, "sm_90a")
    compiled.clear()
    cache.compile("a", {}, "sm_90a")
    assert compiled == []
    cache.compile("b", {}, "sm_90a")
    assert compiled == ["b"]
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= limit


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path, compiled: list[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert KernelCache(tmp_path / "file" / "cache").compile("a", {}, "sm_90a").log == "log"


def test_the_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "mpk-ir"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "mpk-ir"


def test_a_rejected_source_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KernelCompileError):
        KernelCache(tmp_path).compile("this is not C", {}, "sm_90a")
    assert entries(tmp_path) == []


PROCESS = """
import hashlib, sys
from pathlib import Path
from mpk_ir.runtime.cache import KernelCache
cache = KernelCache(Path(sys.argv[1]))
for n in range(8):
    source = f'extern "C" __global__ void kernel(int* x) {{ *x = {n}; }}'
    print(hashlib.sha256(cache.compile(source, {}, "sm_90a").cubin).hexdigest())
"""


def test_two_processes_fill_one_folder_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=60)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert len(set(printed[0])) == 8
    assert printed[0] == printed[1]
    assert len(entries(tmp_path)) == 8
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == printed[0]
