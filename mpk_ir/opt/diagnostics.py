"""Messages with a place, and the check of `// expected-error` comments against them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..core.errors import MpkError

_EXPECTED = re.compile(
    r"expected-(?P<severity>error|warning|note|remark)(?P<regex>-re)?"
    r"\s*(?:@\s*(?P<place>[+-]\d+|above|below|unknown))?\s*\{\{(?P<text>(?(regex).*|.*?))\}\}"
)
_REGEX_PART = re.compile(r"\{\{(.*?)\}\}")


@dataclass(frozen=True)
class Diagnostic:
    """``line`` and ``column`` count from 1; None where the place is not known. ``width`` is in characters."""

    severity: str
    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    width: int = 1
    notes: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)

    def __str__(self) -> str:
        return f"{self.place}: {self.severity}: {self.message}" if self.place else f"{self.severity}: {self.message}"

    def with_notes(self) -> list[Diagnostic]:
        """This diagnostic and its notes, each as a diagnostic at the same place."""
        notes = [Diagnostic("note", note, self.file, self.line, self.column) for note in self.notes]
        return [self, *notes]


class DiagnosticError(MpkError):
    """Processing stopped at ``diagnostic``."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message, where=diagnostic.place or None)
        self.diagnostic = diagnostic


@dataclass(frozen=True)
class Expectation:
    """One `// expected-error@+1 {{text}}`, written in line ``written_at``. ``line`` is None for `@unknown`."""

    severity: str
    pattern: re.Pattern[str]
    text: str
    line: int | None
    written_at: int

    def matches(self, diagnostic: Diagnostic) -> bool:
        """Whether ``diagnostic`` is the one expected: same severity, same line, the text somewhere in its message."""
        same_place = diagnostic.severity == self.severity and diagnostic.line == self.line
        return same_place and self.pattern.search(diagnostic.message) is not None


def expectations(text: str) -> list[Expectation]:
    """The expectations that the comments of ``text`` state."""
    return [
        _expectation(match, number)
        for number, line in enumerate(text.split("\n"), start=1)
        for match in _EXPECTED.finditer(line)
    ]


def _expectation(match: re.Match[str], written_at: int) -> Expectation:
    place = {"above": "-1", "below": "+1"}.get(match["place"], match["place"])
    line = None if place == "unknown" else written_at + int(place or 0)
    return Expectation(match["severity"], _pattern(match), match["text"], line, written_at)


def _pattern(match: re.Match[str]) -> re.Pattern[str]:
    """Plain text; after `-re`, the parts of it that are in double braces again are regular expressions."""
    if not match["regex"]:
        return re.compile(re.escape(match["text"]))
    plain, regular = _REGEX_PART.split(match["text"])[::2], _REGEX_PART.findall(match["text"])
    return re.compile("".join(re.escape(a) + b for a, b in zip(plain, [*regular, ""], strict=True)))


def mismatches(file: str, wanted: list[Expectation], produced: list[Diagnostic]) -> list[Diagnostic]:
    """The errors of a chunk of ``file``: what it expects and did not come, what came and was not expected.

    Each expectation takes one diagnostic. Notes may go unmentioned.
    """
    left = list(wanted)
    errors: list[Diagnostic] = []
    for diagnostic in produced:
        match = next((one for one in left if one.matches(diagnostic)), None)
        if match is not None:
            left.remove(match)
        elif diagnostic.severity != "note":
            message = f"unexpected {diagnostic.severity}: {diagnostic.message}"
            errors.append(Diagnostic("error", message, file, diagnostic.line, diagnostic.column))
    errors += (
        Diagnostic("error", f'expected {one.severity} "{one.text}" was not produced', file, one.written_at)
        for one in left
    )
    return errors
