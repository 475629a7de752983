"""Types and attributes of `sm`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, ClassVar, TypeAlias, TypeVar

from xdsl.dialects.builtin import AffineMapAttr, ArrayAttr, IntAttr, NoneAttr, StringAttr
from xdsl.ir import Attribute, Data, ParametrizedAttribute, TypeAttribute
from xdsl.ir.affine import AffineMap
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from ...core.memory import SCRATCH_HALVES, Layout, Space
from ...tasks.base import Access

Shape: TypeAlias = tuple[int, ...]


def int_array(values: Sequence[int]) -> ArrayAttr[IntAttr]:
    """``values`` as an attribute."""
    return ArrayAttr([IntAttr(value) for value in values])


def ints(array: ArrayAttr[IntAttr]) -> Shape:
    """The inverse of ``int_array``."""
    return tuple(item.data for item in array)


_Enum = TypeVar("_Enum", bound=StrEnum)


def _parse_enum(parser: AttrParser, kind: type[_Enum]) -> _Enum:
    word = parser.parse_identifier(f"one of {', '.join(kind)}")
    if word not in list(kind):
        parser.raise_error(f"expected one of {', '.join(kind)}, found '{word}'")
    return kind(word)


def _parse_shape(parser: AttrParser) -> Shape:
    return tuple(parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer))


def _print_shape(printer: Printer, shape: Shape) -> None:
    printer.print_string("[" + ", ".join(map(str, shape)) + "]")


@irdl_attr_definition
class BufferType(ParametrizedAttribute, TypeAttribute):
    """Device memory of one tensor: `!sm.buffer<[8, 1024], bf16>`."""

    name = "sm.buffer"
    shape: ArrayAttr[IntAttr]
    element_type: Attribute

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            shape = int_array(_parse_shape(parser))
            parser.parse_punctuation(",")
            return [shape, parser.parse_type()]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            _print_shape(printer, ints(self.shape))
            printer.print_string(", ")
            printer.print_attribute(self.element_type)

    def verify(self) -> None:
        if not self.shape.data or any(size < 1 for size in ints(self.shape)):
            raise VerifyException(f"sm.buffer: expected a shape of positive sizes, found {list(ints(self.shape))}")
        if not isinstance(self.element_type, TypeAttribute):
            raise VerifyException(f"sm.buffer: expected an element type, found {self.element_type}")


@irdl_attr_definition
class EventType(ParametrizedAttribute, TypeAttribute):
    """An event tensor: a one-dimensional array of arrival counters, `!sm.event<32>`."""

    name = "sm.event"
    size: IntAttr

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            return [IntAttr(parser.parse_integer())]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(str(self.size.data))

    def verify(self) -> None:
        if self.size.data < 1:
            raise VerifyException(f"sm.event: expected at least one element, found {self.size.data}")


NO_RANK = NoneAttr()
"""Of a box: it lies in the rank's own memory."""
ALL_RANKS = StringAttr("all")
"""Of a box: what is written lands in the memory of every rank."""
MULTICAST = StringAttr("multicast")
"""Of a box: the same by one store, which the switch between the GPUs gives to all of them."""


def _parse_target(parser: AttrParser) -> Attribute:
    if not parser.parse_optional_keyword("to"):
        return NO_RANK
    for everybody in (ALL_RANKS, MULTICAST):
        if parser.parse_optional_keyword(everybody.data):
            return everybody
    return AffineMapAttr(parser.parse_affine_map())


@irdl_attr_definition
class BoxAttr(ParametrizedAttribute):
    """The box of a buffer that a task touches: `#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>`.

    The map takes the task's index to the box's first element; the box is clipped to the buffer. `along [-1, 1]` says
    that tasks whose index differs in dimension 1 touch disjoint parts of the buffer's second dimension although their
    boxes overlap: the parts are chosen at run time (rows of a request, positions of a split).

    In a graph for several ranks the map may have a symbol, the number of the rank that runs the task. What is written
    `to all` lands in the buffer of every rank, and so does `to multicast`, by one store to an address that the switch
    between the GPUs knows; `to (d0) -> (d0 floordiv 4)` in that of one rank, named by the map; else in the rank's own:
    `#sm.box<write, (d0)[s0] -> (s0 * 8, d0 * 16), [8, 16] to all>`.
    """

    name = "sm.box"
    access: Attribute
    offset: AffineMapAttr
    sizes: ArrayAttr[IntAttr]
    along: ArrayAttr[IntAttr]
    to: Attribute

    @staticmethod
    def of(
        access: Access,
        offset: AffineMap,
        sizes: Sequence[int],
        along: Sequence[int] = (),
        to: Attribute = NO_RANK,
    ) -> BoxAttr:
        parts = along or [-1] * len(sizes)
        return BoxAttr(AccessAttr(access), AffineMapAttr(offset), int_array(sizes), int_array(parts), to)

    @property
    def mode(self) -> Access:
        assert isinstance(self.access, AccessAttr)
        return self.access.data

    @property
    def pushes(self) -> bool:
        """Whether it is written into the memory of other ranks."""
        return self.to != NO_RANK

    @property
    def multicasts(self) -> bool:
        """Whether one store writes it into the memory of all ranks."""
        return self.to == MULTICAST

    @property
    def by_rank(self) -> bool:
        """Whether it depends on the rank."""
        return self.offset.data.num_symbols > 0

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            access = AccessAttr(_parse_enum(parser, Access))
            parser.parse_punctuation(",")
            offset = AffineMapAttr(parser.parse_affine_map())
            parser.parse_punctuation(",")
            sizes = _parse_shape(parser)
            along = _parse_shape(parser) if parser.parse_optional_keyword("along") else (-1,) * len(sizes)
            return [access, offset, int_array(sizes), int_array(along), _parse_target(parser)]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(f"{self.mode}, {self.offset.data}, ")
            _print_shape(printer, ints(self.sizes))
            if any(index >= 0 for index in ints(self.along)):
                printer.print_string(" along ")
                _print_shape(printer, ints(self.along))
            if self.pushes:
                assert isinstance(self.to, StringAttr | AffineMapAttr)
                printer.print_string(f" to {self.to.data}")

    def verify(self) -> None:
        if not isinstance(self.access, AccessAttr):
            raise VerifyException(f"sm.box: expected an access, found {self.access}")
        rank = len(self.sizes.data)
        if len(self.offset.data.results) != rank or len(self.along.data) != rank:
            raise VerifyException(
                f"sm.box: expected offset, sizes and along of one rank, found {len(self.offset.data.results)}, "
                f"{rank} and {len(self.along.data)}"
            )
        if any(size < 1 for size in ints(self.sizes)):
            raise VerifyException(f"sm.box: expected positive sizes, found {list(ints(self.sizes))}")
        if self.offset.data.num_symbols > 1:
            raise VerifyException(f"sm.box: expected one symbol, the rank, found {self.offset.data.num_symbols}")
        if self.pushes and self.mode is not Access.WRITE:
            raise VerifyException(f"sm.box: expected a write, which alone goes to other ranks, found {self.mode}")


class WordSyntax:
    """Syntax of an attribute that is one of ``words``, in angle brackets."""

    words: ClassVar[type[StrEnum]]
    data: Any

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Any:
        with parser.in_angle_brackets():
            return _parse_enum(parser, cls.words)

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(self.data)


@irdl_attr_definition
class AccessAttr(WordSyntax, Data[Access]):
    """How a task uses an operand; written inside `#sm.box`."""

    name = "sm.access"
    words = Access


@irdl_attr_definition
class SpaceAttr(WordSyntax, Data[Space]):
    """Where a buffer lives: `#sm.space<scratch>`."""

    name = "sm.space"
    words = Space


@irdl_attr_definition
class LayoutAttr(WordSyntax, Data[Layout]):
    """Order of a buffer's elements: `#sm.layout<mma_rows_16>`."""

    name = "sm.layout"
    words = Layout


@irdl_attr_definition
class CyclicAttr(ParametrizedAttribute):
    """Placement rule `#sm.cyclic<5>`: task t of the grid runs on SM (5 + t) mod the number of SMs."""

    name = "sm.cyclic"
    first: IntAttr

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            return [IntAttr(parser.parse_integer())]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(str(self.first.data))


@irdl_attr_definition
class SharedMemoryAttr(ParametrizedAttribute):
    """How a block's shared memory is split, beside what the runtime keeps there: `#sm.shared_memory<ring 13 x 16384,
    scratch 2 x 640>`, a ring of stages that weights stream through, and two halves of scratch that bodies use in turn.

    `ring 13 x 16384 in_flight 3 to 5` says of how many stages the copies are under way at once: 3, or 5 while no more
    than 5 are under way or full; without it, as many as are free.
    """

    name = "sm.shared_memory"
    stages: IntAttr
    stage_bytes: IntAttr
    scratch_bytes: IntAttr
    in_flight: IntAttr
    most_in_flight: IntAttr

    @staticmethod
    def of(
        stages: int, stage_bytes: int, scratch_bytes: int, in_flight: tuple[int, int] | None = None
    ) -> SharedMemoryAttr:
        """``in_flight``: stages whose copies are under way at once, and the same of an SM that is behind; None: all."""
        numbers = (stages, stage_bytes, scratch_bytes, *(in_flight or (stages, stages)))
        return SharedMemoryAttr(*map(IntAttr, numbers))

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            parser.parse_keyword("ring")
            stages = parser.parse_integer()
            parser.parse_keyword("x")
            stage_bytes = parser.parse_integer()
            few = most = stages
            if parser.parse_optional_keyword("in_flight"):
                few = parser.parse_integer()
                parser.parse_keyword("to")
                most = parser.parse_integer()
            parser.parse_punctuation(",")
            parser.parse_keyword("scratch")
            halves = parser.parse_integer()
            if halves != SCRATCH_HALVES:
                parser.raise_error(f"expected {SCRATCH_HALVES} halves of scratch, found {halves}")
            parser.parse_keyword("x")
            return [*map(IntAttr, (stages, stage_bytes, parser.parse_integer(), few, most))]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            few, most = self.in_flight.data, self.most_in_flight.data
            limit = f" in_flight {few} to {most}" if few < self.stages.data else ""
            printer.print_string(
                f"ring {self.stages.data} x {self.stage_bytes.data}{limit}, "
                f"scratch {SCRATCH_HALVES} x {self.scratch_bytes.data}"
            )

    @property
    def ring_bytes(self) -> int:
        return self.stages.data * self.stage_bytes.data

    def verify(self) -> None:
        if self.stages.data < 1 or self.stage_bytes.data < 1 or self.scratch_bytes.data < 0:
            raise VerifyException(
                f"sm.shared_memory: expected stages that hold something, found {self.stages.data} of "
                f"{self.stage_bytes.data} bytes and {self.scratch_bytes.data} bytes of scratch"
            )
        if not 1 <= self.in_flight.data <= self.most_in_flight.data <= self.stages.data:
            raise VerifyException(
                f"sm.shared_memory: expected copies of 1 to {self.stages.data} stages in flight, found "
                f"{self.in_flight.data} to {self.most_in_flight.data}"
            )


@irdl_attr_definition
class StreamAttr(ParametrizedAttribute):
    """How a grid's tasks use the ring: `#sm.stream<keeps 4, ahead 13>`. A task has at most four stages at a time, which
    it gives back in the order of use; while it waits for its events, the loader of its SM fills at least thirteen from
    the task's first on.
    """

    name = "sm.stream"
    keeps: IntAttr
    ahead: IntAttr

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            parser.parse_keyword("keeps")
            keeps = parser.parse_integer()
            parser.parse_punctuation(",")
            parser.parse_keyword("ahead")
            return [IntAttr(keeps), IntAttr(parser.parse_integer())]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(f"keeps {self.keeps.data}, ahead {self.ahead.data}")

    def verify(self) -> None:
        if self.keeps.data < 1 or self.ahead.data < 0:
            raise VerifyException(
                f"sm.stream: expected a stage at least, found {self.keeps.data} kept and {self.ahead.data} ahead"
            )
