"""What a task kind is: one object with its operands, CUDA signature, cost and numpy meaning."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from enum import StrEnum
from importlib import resources
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from ..core.errors import PlanError
from ..core.memory import PANEL_LAYOUTS, Layout
from ..core.target import Target

Array = np.ndarray[Any, Any]
Scalar = int | float | bool | str
CONSUMER_WARPS = 8
"""Of a block: the warps that run a task's body (codegen/cuda/mpk/runtime/context.cuh)."""
CONSUMER_THREADS = 32 * CONSUMER_WARPS


class Access(StrEnum):
    """How a task uses an operand."""

    READ = "read"
    WRITE = "write"
    READ_WRITE = "read_write"

    @property
    def reads(self) -> bool:
        return self is not Access.WRITE

    @property
    def writes(self) -> bool:
        return self is not Access.READ


@dataclass(frozen=True)
class Operand:
    """``streamed``: the loader warp copies it to shared memory ahead of the task, so it must be a weight, or a state of
    which the body streams only what earlier steps wrote. ``appends``: a body writes nothing of it that an earlier step
    wrote. ``early``: the body reads it before it waits for its events, so no task of the same step may write it first.

    ``polled``: the body can tell words that are written from words that are not, so that the operand needs no event
    (`sm-poll-data`). It writes no word that is kUnwritten, and each word of the rows that are active once.

    ``tells``: of a polled operand. Who has seen, of what is written here, the words of all active rows in a task's
    box knows that no warp of its block still reads anything for this task or one before it; and a body reads all
    these words before it writes what is not polled, and before the last words that it publishes.

    ``layout``: the order of elements that the body knows; or ``panel``: the parameter that says of how many rows the
    operand's panels are (`Layout.ROW_PANELS_8`), 1 for row by row. `TaskKind.layout` answers for both."""

    name: str
    access: Access = Access.READ
    optional: bool = False
    streamed: bool = False
    early: bool = False
    polled: bool = False
    appends: bool = False
    tells: bool = False
    layout: Layout = Layout.ROW_MAJOR
    panel: str = ""


@dataclass(frozen=True)
class Params:
    """Compile-time parameters of a task kind; a frozen dataclass of int, float, bool, str or tuples of them."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


P = TypeVar("P", bound=Params)


class TaskKind(ABC, Generic[P]):
    """A kind of task: everything the compiler, the simulator and the kernel need to know of it.

    A kind `foo` lives in `mpk_ir/tasks/foo.py` and its CUDA body in `codegen/cuda/mpk/tasks/foo.cuh`.
    """

    name: ClassVar[str]
    operands: ClassVar[tuple[Operand, ...]]
    params_type: type[P]
    stages_at_once: ClassVar[int] = 1
    """Of a kind that streams: the most stages of the ring that its body has taken and not given back at a time. It
    takes them in the order in which its `load` fills them and gives them back in that order, all by its end."""

    fetches: ClassVar[bool] = False
    """Of a kind that streams: whether the loader also brings activations, which its body then waits for in the ring."""

    dealt_because: ClassVar[str] = ""
    """Why the tasks of a grid deal its work among themselves at run time; empty: what each of them does is fixed. Which
    part of its boxes such a task touches is then not known before, so a box is the same for all of them; no two write
    the same element, and each element that the grid is to write one of them writes (`takers`)."""

    @property
    def streams(self) -> bool:
        """Whether a loader fills stages of the ring for its tasks."""
        return any(operand.streamed for operand in self.operands)

    def least_stages(self, params: P, indices: Array) -> Array:
        """[tasks]: of a kind that streams, how many stages the loader fills at least for the tasks at ``indices``
        [tasks, dims]. A state may be empty, so what is streamed of one does not count."""
        del params
        return np.zeros(len(indices), np.int64)

    def params_from(self, values: Mapping[str, Any]) -> P:
        """``values`` as this kind's params. Raises PlanError that names what is missing or unknown."""
        known = {field.name for field in fields(self.params_type)}
        needed = {field.name for field in fields(self.params_type) if field.default is MISSING}
        if not needed <= set(values) <= known:
            missing, extra = sorted(needed - set(values)), sorted(set(values) - known)
            raise PlanError(f"task kind '{self.name}': parameters missing {missing}, unknown {extra}")
        return self.params_type(**values)

    def checked_params(self, values: Mapping[str, Any]) -> P:
        """As `params_from`; raises PlanError for panels that no layout has, too."""
        params = self.params_from(values)
        for operand in self.operands:
            self.layout(params, operand)
        return params

    def layout(self, params: P, operand: Operand) -> Layout:
        """The order of elements in which the body takes ``operand``. Raises PlanError for panels that no layout has."""
        if not operand.panel:
            return operand.layout
        rows = getattr(params, operand.panel)
        if rows not in PANEL_LAYOUTS:
            raise PlanError(
                f"task kind '{self.name}': {operand.panel} is {rows}, expected one of {sorted(PANEL_LAYOUTS)}"
            )
        return PANEL_LAYOUTS[rows]

    def takers(self, params: P) -> int:
        """Among how many tasks the work is dealt at run time; 0: it is not."""
        del params
        return 0

    @abstractmethod
    def signature(self, params: P) -> str:
        """The C++ type of the body, e.g. `mpk::Linear<4096, 2, 1>`: one switch case per distinct signature."""

    @abstractmethod
    def cost_us(self, params: P, target: Target) -> float:
        """Time of one task on one SM of ``target``, its operands being ready."""

    @abstractmethod
    def reference(self, params: P, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        """The meaning, in numpy: reads and writes ``views`` (each operand's box, by operand name) in place."""

    def body_arguments(self, params: P) -> tuple[float, ...]:
        """Numbers passed to the body's `run` after the context: what need not be known to the C++ compiler's types."""
        return ()

    def record_numbers(self, params: P) -> tuple[int, ...]:
        """Numbers that each task's record carries in the places of operands that the kind does not have: what the body
        is not compiled for at all, so that grids which differ only in them share a case of the switch, and its code."""
        del params
        return ()

    def scratch_bytes(self, params: P) -> int:
        """Shared memory the body needs beside the weight ring; the body asserts at compile time that it suffices."""
        del params
        return 0

    def header(self) -> str:
        """The text of the CUDA header that defines the body."""
        return resources.files("mpk_ir.codegen").joinpath(f"cuda/mpk/tasks/{self.name}.cuh").read_text()

    def operand(self, name: str) -> Operand:
        return next(operand for operand in self.operands if operand.name == name)
