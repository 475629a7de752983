"""What runs a program: a GPU or the simulator, behind one interface."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..codegen.program import Buffer, Program
from ..core.errors import UsageError, did_you_mean
from ..core.memory import Space

HOST_SPACES = frozenset({Space.STATE, Space.INPUT, Space.OUTPUT})


class Engine(Protocol):
    """Runs steps of one program and keeps its state between them."""

    @property
    def device_name(self) -> str:
        """What a person calls the machine that runs the steps."""
        ...

    def names(self) -> tuple[str, ...]:
        """The buffers that the host may read and write between runs."""
        ...

    def read_state(self, name: str) -> np.ndarray[Any, Any]:
        """A copy of a buffer; bf16 as float32. Waits for queued steps."""
        ...

    def write_state(self, name: str, values: np.ndarray[Any, Any]) -> None:
        """Replace a buffer's values, of its whole shape; bf16 rounds. Waits for queued steps."""
        ...

    def run(self, num_steps: int) -> None:
        """Queue ``num_steps`` steps."""
        ...

    def synchronize(self) -> None:
        """Wait for the queued steps. Raises what went wrong in them."""
        ...


def host_names(program: Program) -> tuple[str, ...]:
    """The buffers that the host may read and write between runs."""
    return tuple(buffer.name for buffer in program.buffers if buffer.space in HOST_SPACES)


def host_buffer(program: Program, name: str) -> Buffer:
    """The buffer called ``name``. Raises UsageError if there is none that the host may touch."""
    if name not in host_names(program):
        advice = did_you_mean(name, host_names(program))
        raise UsageError(f"program '{program.name}' has no state, input or output '{name}'", advice=advice)
    return program.buffer(name)


def require_shape(buffer: Buffer, values: np.ndarray[Any, Any]) -> None:
    """Raise UsageError unless ``values`` have the buffer's shape."""
    if values.shape != buffer.shape:
        raise UsageError(f"'{buffer.name}': found values of shape {values.shape}, expected {buffer.shape}")
