"""Runs `// RUN:` lines in this process: about 5 ms each instead of a second for two processes."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from filecheck.matcher import Matcher
from filecheck.options import parse_argv_options

from mpk_ir.opt.main import main as mpk_opt


class LitError(AssertionError):
    """A RUN line, or what it runs, is wrong; the message shows what the stages printed."""


@dataclass(frozen=True)
class Finished:
    """What a tool did: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


def run_tool(words: Sequence[str], stdin: str = "") -> Finished:
    """Run `mpk-opt` or `filecheck` in this process."""
    tools = {"mpk-opt": mpk_opt, "filecheck": _filecheck}
    if words[0] not in tools:
        raise LitError(f"RUN lines know {', '.join(tools)}; found '{words[0]}'")
    out, err = io.StringIO(), io.StringIO()
    given = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    with patch.object(sys, "stdin", given), redirect_stdout(out), redirect_stderr(err):
        code = tools[words[0]](list(words[1:]))
    return Finished(code, out.getvalue(), err.getvalue())


def _filecheck(arguments: list[str]) -> int:
    return Matcher.from_opts(parse_argv_options(["filecheck", *arguments])).run()


def run_lines(text: str) -> list[str]:
    """The commands after `// RUN:`; one that ends in a backslash goes on in the next."""
    found: list[str] = []
    continues = False
    for line in text.splitlines():
        if not line.startswith("// RUN:"):
            continue
        command = line.removeprefix("// RUN:").strip()
        if continues:
            found[-1] += " " + command.removesuffix("\\")
        else:
            found.append(command.removesuffix("\\"))
        continues = command.endswith("\\")
    return found


def run_command(command: str, file: Path, scratch: Path) -> None:
    """Run one command: stages between `|`, each a tool, perhaps with `not` before it or `2>&1` after it.

    `%s` is ``file``, `%t` a path in ``scratch``. Raises LitError if a stage does not end as it should.
    """
    text = ""
    words = [word.replace("%s", str(file)).replace("%t", str(scratch / "t")) for word in shlex.split(command)]
    for stage in _stages(words):
        fails = stage[0] == "not"
        both = "2>&1" in stage
        finished = run_tool([word for word in stage[fails:] if word != "2>&1"], text)
        if (finished.code != 0) != fails:
            shown = "\n".join((f"{shlex.join(stage)}: exit code {finished.code}", finished.out, finished.err, text))
            raise LitError(shown)
        text = finished.err + finished.out if both else finished.out


def _stages(words: list[str]) -> list[list[str]]:
    stages: list[list[str]] = [[]]
    for word in words:
        if word == "|":
            stages.append([])
        else:
            stages[-1].append(word)
    return stages


def run_file(file: Path, scratch: Path) -> None:
    """Run all commands of ``file``. Raises LitError if there is none."""
    commands = run_lines(file.read_text())
    if not commands:
        raise LitError(f"{file}: no `// RUN:` line")
    for command in commands:
        run_command(command, file, scratch)
