"""Text in: chunks of a file, and a parser that gives every op its location."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import FileLineColLoc, IntAttr, ModuleOp, StringAttr, UnknownLoc
from xdsl.ir import Operation
from xdsl.parser import Parser
from xdsl.utils.exceptions import ParseError

from ..core.errors import did_you_mean
from ..pass_manager import describe
from ..passes.rewriting import drop_dump
from .diagnostics import Diagnostic, DiagnosticError

SPLIT_MARKER = "// -----"
_COMMENT = re.compile(r"//[^\n]*")
_NO_SUCH_OP = re.compile(r"Operation (?P<name>\S+) is not registered")
_LOCATED = re.compile(r"^(?P<file>.*):(?P<line>\d+):(?P<column>\d+)$")


@dataclass(frozen=True)
class Source:
    """A chunk of a file. Lines before it are blank in ``text``, so that line numbers are those of the file."""

    name: str
    text: str

    def split(self) -> list[Source]:
        """The chunks between lines that start with `// -----`."""
        lines = self.text.split("\n")
        bounds = [i for i, line in enumerate(lines) if line.startswith(SPLIT_MARKER)]
        starts, ends = [0, *(i + 1 for i in bounds)], [*bounds, len(lines)]
        return [
            Source(self.name, "\n" * begin + "\n".join(lines[begin:end]) + "\n" * (end < len(lines)))
            for begin, end in zip(starts, ends, strict=True)
        ]

    def parse(self, ctx: Context, *, implicit_module: bool = True) -> ModuleOp:
        """The module in this chunk; an empty one if there is nothing but comments. Raises DiagnosticError."""
        if not _COMMENT.sub("", self.text).strip():
            return ModuleOp([])
        try:
            parser = LocatingParser(ctx, self.text, self.name)
        except ParseError as error:  # it reads the first token
            raise DiagnosticError(self._diagnostic(error, ctx)) from error
        try:
            return parser.parse_module(implicit_module)
        except ParseError as error:
            raise DiagnosticError(self._diagnostic(error, ctx)) from error
        except RecursionError as error:
            raise DiagnosticError(Diagnostic("error", "regions are nested too deeply to parse", self.name)) from error
        except Exception as error:  # an attribute's verifier, or a dialect's own parser: neither knows the place
            drop_dump(error)
            line, column = parser.place(parser.pos)
            raise DiagnosticError(Diagnostic("error", describe(error), self.name, line, column)) from error

    def _diagnostic(self, error: ParseError, ctx: Context) -> Diagnostic:
        message, begin, end = " ".join(error.msg.split()), error.span.start, error.span.end
        match = _NO_SUCH_OP.fullmatch(message)
        if match is not None:  # xDSL points at what follows the name
            begin = self.text.rfind(match["name"], 0, end)
            end = begin + len(match["name"])
        line = self.text.count("\n", 0, begin) + 1
        column = begin - self.text.rfind("\n", 0, begin)
        notes = _guess(match["name"], ctx) if match is not None else ()
        return Diagnostic("error", message, self.name, line, column, max(1, end - begin), notes)

    def excerpt(self, diagnostic: Diagnostic) -> str:
        """The line ``diagnostic`` is about and a caret under it; nothing if it lies elsewhere."""
        if diagnostic.file != self.name or diagnostic.line is None or diagnostic.column is None:
            return ""
        lines = self.text.split("\n")
        if not 0 < diagnostic.line <= len(lines):
            return ""
        line, start = lines[diagnostic.line - 1], diagnostic.column - 1
        width = max(1, min(diagnostic.width, len(line) - start))
        indent = "".join("\t" if c == "\t" else " " for c in line[:start])
        return f"{line}\n{indent}^{'~' * (width - 1)}\n"


def _guess(op: str, ctx: Context) -> tuple[str, ...]:
    """Help with an op that does not exist."""
    dialect = op.partition(".")[0]
    if dialect not in ctx.registered_dialect_names:
        return (f"help: no dialect is called '{dialect}': {_closest(dialect, ctx.registered_dialect_names)}",)
    return (f"help: {_closest(op, (known.name for known in ctx.get_dialect(dialect).operations))}",)


def _closest(name: str, known: Iterable[str]) -> str:
    guess = did_you_mean(name, known)
    return guess if guess.startswith("did") else "see --show-dialects"


def place_of(where: str | None) -> tuple[str | None, int | None, int | None]:
    """`file:line:col` taken apart; (``where``, None, None) if it is something else."""
    match = _LOCATED.match(where) if where else None
    return (match["file"], int(match["line"]), int(match["column"])) if match else (where, None, None)


class LocatingParser(Parser):
    """xDSL's parser; an op without `loc(...)` gets the place where its text begins."""

    def __init__(self, ctx: Context, text: str, name: str) -> None:
        super().__init__(ctx, text, name)
        self._file = StringAttr(name)
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def parse_operation(self) -> Operation:
        """Parse one op and locate it."""
        begin = self.pos
        op = super().parse_operation()
        if isinstance(op.location, UnknownLoc):
            line, column = self.place(begin)
            op.location = FileLineColLoc(self._file, IntAttr(line), IntAttr(column))
        return op

    def place(self, position: int) -> tuple[int, int]:
        """Line and column, both from 1, of a position in the text."""
        line = bisect_right(self._line_starts, position)
        return line, position - self._line_starts[line - 1] + 1
