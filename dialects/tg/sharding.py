"""Which part of a tensor a rank holds."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import IntAttr
from xdsl.ir import Attribute, ParametrizedAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from ...core.ranks import Shard
from .tensors import Shape

RANKS = "tg.ranks"
"""Attribute of a function that every one of so many ranks runs; without it the function is for one rank."""


@irdl_attr_definition
class ShardAttr(ParametrizedAttribute):
    """One of ``parts`` equal pieces along ``dim``: `#tg.shard<dim = 0, parts = 4>`.

    ``parts`` divides the number of ranks, and neighbours share: rank r of N has piece r * parts / N, rounded down.
    """

    name = "tg.shard"
    dim: IntAttr
    parts: IntAttr

    @staticmethod
    def of(dim: int, parts: int) -> ShardAttr:
        return ShardAttr(IntAttr(dim), IntAttr(parts))

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            dim = _parse_entry(parser, "dim")
            parser.parse_punctuation(",")
            return [dim, _parse_entry(parser, "parts")]

    def print_parameters(self, printer: Printer) -> None:
        printer.print_string(f"<dim = {self.dim.data}, parts = {self.parts.data}>")

    def verify(self) -> None:
        for name, found, least in (("dim", self.dim.data, 0), ("parts", self.parts.data, 1)):
            if found < least:
                raise VerifyException(f"tg.shard: '{name}': found {found}, expected {least} or more")

    @property
    def shard(self) -> Shard:
        """As what the runtime knows it by."""
        return Shard(self.dim.data, self.parts.data)

    def box(self, whole: Shape, rank: int, ranks: int) -> tuple[slice, ...]:
        """The piece of ``rank`` as slices of a tensor of shape ``whole``, whose dimension ``parts`` divides."""
        return self.shard.box(whole, rank, ranks)

    def local(self, whole: Shape) -> Shape:
        """The shape of a piece of a tensor of shape ``whole``."""
        return tuple(size // self.parts.data if d == self.dim.data else size for d, size in enumerate(whole))


def _parse_entry(parser: AttrParser, name: str) -> IntAttr:
    parser.parse_characters(name)
    parser.parse_punctuation("=")
    return IntAttr(parser.parse_integer(allow_boolean=False))
