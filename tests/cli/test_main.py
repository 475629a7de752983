"""Every way to fail ends in one message and an exit code, never in a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mpk_ir.cli import run_command
from mpk_ir.cli.main import main
from tests.processor_time import children_seconds

MPK = [sys.executable, "-m", "mpk_ir.cli.main"]


@pytest.mark.parametrize(
    ("arguments", "message", "guess"),
    [
        (["rum"], "unknown command 'rum'", "did you mean 'run'?"),
        (["run", "--modle", "x"], "unknown option '--modle'", "did you mean '--model'?"),
        (["run", "--max-new", "3", "--model", "x"], "unknown option '--max-new'", "did you mean '--max-new-tokens'?"),
        (["run"], "required: --model", "mpk run --help"),
        (["run", "--model", "x"], "no prompt", "--prompt TEXT"),
        (["run", "--model", "x", "--tokens", "1,b"], "--tokens: found '1,b'", ""),
        (["run", "--model", "x", "--max-new-tokens", "0"], "found '0', expected an integer of 1 or more", ""),
        (["run", "--model", "x", "--target", "h20"], "unknown target 'h20'", "did you mean 'h200'?"),
        (["compile", "x", "--emit", "ptx"], "--emit: unknown 'ptx'", "known: "),
        (["compile", "x", "--emit", "cubin"], "--emit cubin writes no text", "-o"),
        (["compile", "x", "y"], "unrecognized arguments: y", "mpk compile --help"),
    ],
)
def test_wrong_usage_is_told_with_a_guess(
    arguments: list[str], message: str, guess: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mpk: error: ")
    assert message in err
    assert guess in err


@pytest.mark.parametrize("command", [["run", "--tokens", "1", "--model"], ["compile", "--emit", "tg"]])
def test_a_folder_that_is_no_checkpoint_is_named(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, str(tmp_path)]) == 1
    assert f"{tmp_path}: no config.json" in capsys.readouterr().err


def test_a_bug_is_called_one_and_shown_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(run_command, "run", fail)
    assert main(["run", "--model", "x"]) == 70
    plain = capsys.readouterr().err
    assert "internal error: ZeroDivisionError: oh" in plain
    assert "Traceback" not in plain
    assert main(["run", "--model", "x", "--traceback"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_control_c_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_command, "run", interrupt)
    assert main(["run", "--model", "x"]) == 130
    assert capsys.readouterr().err.strip() == "interrupted"


def test_an_unwritable_output_is_named(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "missing" / "out.mlir"
    assert main(["compile", str(checkpoint), "--emit", "tg", "-o", str(output)]) == 1
    assert f"{output}: No such file or directory" in capsys.readouterr().err


def test_help_lists_the_commands_and_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "  run " in text
    assert "  compile " in text
    for arguments in (["--help"], ["run", "--help"], ["compile", "--help"], ["--version"]):
        before = children_seconds()
        subprocess.run([*MPK, *arguments], check=True, capture_output=True)
        assert children_seconds() - before < 0.5


@pytest.mark.parametrize("arguments", [["--help"], ["compile", "MODEL", "--emit", "sm"]])
def test_a_reader_that_goes_away_is_no_error(checkpoint: Path, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [*MPK, *(str(checkpoint) if word == "MODEL" else word for word in arguments)]
    finished = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert finished.returncode == 128 + signal.SIGPIPE
    assert finished.stderr == ""
