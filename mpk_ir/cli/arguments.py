"""Argument parsing in the manner of the rest: a mistake is a `UsageError` with a guess."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NoReturn

from ..core.errors import UsageError, did_you_mean
from ..core.target import target_of


class Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would exit; abbreviated options are mistakes too."""

    def __init__(self, *, prog: str, description: str | None = None) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, advice=f"see `{self.prog} --help`")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The parsed ``arguments``. Raises UsageError, with the closest option if one is unknown."""
        for argument in arguments:  # before argparse complains of what the mistyped option left out
            option = argument.partition("=")[0]
            if option.startswith("--") and option not in self._option_string_actions:
                raise UsageError(f"unknown option '{option}'", advice=did_you_mean(option, self._option_string_actions))
        return self.parse_args(arguments)


def positive_int(text: str) -> int:
    """An integer of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"found '{text}', expected an integer of 1 or more")
    return int(text)


def token_ids(text: str) -> list[int]:
    """`1,2,3` as token ids."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--tokens: found '{text}', expected ids such as 1,2,3")
    return [int(part) for part in parts]


def target_name(text: str) -> str:
    """The name of a target. Raises UsageError with a guess."""
    return target_of(text).name


def one_of(option: str, *names: str) -> Callable[[str], str]:
    """A converter that takes one of ``names`` and guesses at the rest."""

    def convert(text: str) -> str:
        if text not in names:
            raise UsageError(f"{option}: unknown '{text}'", advice=did_you_mean(text, names))
        return text

    return convert


def add_capacity(parser: argparse.ArgumentParser) -> None:
    """The options that say how much a step holds; they become `StepOptions`."""
    parser.add_argument(
        "--rows", type=positive_int, metavar="N", help="tokens computed in a step (default: 8 or batch)"
    )
    parser.add_argument(
        "--page-size", type=positive_int, default=64, metavar="N", help="positions of a cache page (64)"
    )
