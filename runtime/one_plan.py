"""Ranks agree before they run, and fail together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..codegen.program import Program
from ..core.errors import MpkError, RankError


class Gathers(Protocol):
    """What reaches all processes of a program."""

    def gather(self, value: Any) -> list[Any]:
        """The ``value`` of every process, in order of ranks. Every process calls it at once."""
        ...


def require_one_plan(program: Program, peers: Gathers) -> None:
    """Raise RankError unless the ranks of all processes are of one program: else they would wait for ever."""
    found = peers.gather(program.digest() if program.ranks > 1 else "")
    if different := [rank for rank, digest in enumerate(found) if digest != found[0]]:
        raise RankError(
            f"rank {different[0]} has another plan than rank 0: {found[different[0]][:12]}, expected {found[0][:12]}",
            advice="give every rank the same model, options and version of mpk-ir",
        )


def raise_first(errors: Sequence[str | None], mine: MpkError | None) -> None:
    """Raise RankError for the first of ``errors``, by rank, if this process has none of its own."""
    if mine is not None:
        return
    for rank, error in enumerate(errors):
        if error is not None:
            raise RankError(f"rank {rank} failed, and with it all: {error}")
