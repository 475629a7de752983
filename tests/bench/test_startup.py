"""The benchmark of startup without a GPU: two processes share caches that begin empty, and what they tell is shown."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mpk_ir.bench import startup
from mpk_ir.bench.startup import Packed, Started
from mpk_ir.runtime import driver

RESOURCES = {"registers": 168, "spill_bytes": 36}
STARTED = Started("tiny", "empty", 4.0, 0.5, 2.25, 4.5, 0.25, 11.5, 63, RESOURCES)
PACKED = Packed("tiny", "GPU", 2_000_000_000, 0.004, 100_000_000)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each process was given, and whether its caches were empty."""
    begun: list[dict[str, Any]] = []

    def run(command: list[str], env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        folder = Path(env["XDG_CACHE_HOME"])
        begun.append({"command": command, "folder": folder, "empty": not list(folder.iterdir())})
        (folder / "entry").write_text("kept")
        told = {"started": asdict(STARTED), "packed": [asdict(PACKED)] if len(begun) == 2 else []}
        return subprocess.CompletedProcess(command, 0, f"a warning\n{json.dumps(told)}\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    return begun


def test_the_second_process_finds_what_the_first_left(
    processes: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert startup.main(["--models", "tiny", "--from-host", "--json", str(tmp_path / "s.json")]) == 0
    assert [process["empty"] for process in processes] == [True, False]
    assert all("--from-host" in process["command"] for process in processes)
    assert not processes[0]["folder"].exists()
    out = capsys.readouterr().out
    assert "| tiny | empty | 4.00 | 2.25 | 4.50 | 0.25 | 7.00 | 11.50 |" in out
    assert "| tiny | GPU | 2.00 | 0.004 | 500 | 0.10 | 5% |" in out
    assert "63 tasks, registers 168, spill_bytes 36" in out
    data = json.loads((tmp_path / "s.json").read_text())
    assert (len(data["started"]), len(data["packed"])) == (2, 1)


def test_what_keeps_a_process_from_it_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "find_device", lambda ordinal=0: None)
    assert startup.main(["--models", "tiny", "--child", "empty"]) == 1
    assert "a kernel is loaded on a GPU" in capsys.readouterr().err
    failed = subprocess.CompletedProcess([], 1, "", "error: no GPU\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    assert startup.main(["--models", "tiny"]) == 1
    assert "tiny with empty caches: error: no GPU" in capsys.readouterr().err
    assert startup.main(["--models", "tinny"]) == 2
