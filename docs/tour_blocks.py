"""Fill the IR blocks of tour.md with what mpk-opt prints; `--check` only compares.

A block follows a line `<!-- mpk-opt PIPELINE | REGEX -->`: mpk-opt runs PIPELINE on tour.mlir, and the lines that match
REGEX are shown, without their indentation.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent
BLOCK = re.compile(r"<!-- mpk-opt (?P<command>[^|\n]*) \| (?P<select>[^\n]*) -->\n```(?P<kind>\w+)\n.*?```\n", re.S)


def filled(text: str) -> str:
    """``text`` with every block as mpk-opt prints it now."""
    return BLOCK.sub(_block, text)


def _block(match: re.Match[str]) -> str:
    command, select = match["command"], match["select"]
    arguments = [sys.executable, "-m", "mpk_ir.opt.main", str(DOCS / "tour.mlir"), *_arguments(command)]
    printed = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=DOCS.parent).stdout
    lines = [line.strip() for line in printed.splitlines() if re.search(select, line)]
    assert lines, f"no line of {command} matches {select}"
    body = "\n".join(lines)
    return f"<!-- mpk-opt {command} | {select} -->\n```{match['kind']}\n{body}\n```\n"


def _arguments(command: str) -> list[str]:
    pipeline, _, target = command.partition(" -t ")
    return ["-p", pipeline, *(["-t", target] if target else [])]


def main() -> int:
    """Exit code 1 if `--check` finds a stale block."""
    page = DOCS / "tour.md"
    text = page.read_text()
    new = filled(text)
    if "--check" in sys.argv[1:]:
        return int(new != text)
    page.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
