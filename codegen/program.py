"""`Program`: the waist of the system. Above it no GPU is needed, below it no xDSL.

A program is one step of a model, planned: its buffers, its task tables in the order each SM runs them, and the CUDA
source that executes those tables. The simulator reads the same tables as the GPU.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ..core.dtype import DType, dtype_of
from ..core.errors import UsageError
from ..core.memory import Layout, Space
from ..core.ranks import Shard
from ..core.target import Target, target_of
from ..tasks.base import Access

MAX_OPERANDS = 13
MAX_RANK = 4
MAX_WAITS = 4
MAX_SIGNALS = 4

TASK = np.dtype(
    [
        ("grid", np.int32),
        ("index", np.int32, 3),
        ("sm", np.int32),
        ("flags", np.int32),
        ("num_waits", np.int32),
        ("wait_event", np.int32, MAX_WAITS),
        ("wait_count", np.int32, MAX_WAITS),
        ("num_signals", np.int32),
        ("signal_event", np.int32, MAX_SIGNALS),
        ("push_to", np.int32),
        ("offsets", np.int32, (MAX_OPERANDS, MAX_RANK)),
        ("sizes", np.int32, (MAX_OPERANDS, MAX_RANK)),
    ]
)
"""One task. ``wait_count`` is the arrivals per step that the task needs on an event (the kernel adds the epoch);
``offsets``/``sizes`` are the box, in elements, of each operand of its grid, clipped to the buffer, on rank 0.
``push_to`` is the rank into whose memory it writes its ``pushed`` operands, or `TO_ALL`; `TO_SELF` if it has none."""


@dataclass(frozen=True)
class Pack:
    """How a weight buffer is made of parameters: concatenated along dimension 0, then optionally two halves
    interleaved in blocks of ``interleave`` rows (gate rows and up rows of one tile side by side). With ``shards``, one
    for each source, of the pieces that a rank holds."""

    sources: tuple[str, ...]
    interleave: int = 0
    shards: tuple[Shard, ...] = ()


@dataclass(frozen=True)
class Buffer:
    """A tensor of the plan. ``padded_shape`` is what device memory holds (tiles are whole there)."""

    name: str
    space: Space
    shape: tuple[int, ...]
    dtype: DType
    layout: Layout = Layout.ROW_MAJOR
    padded_shape: tuple[int, ...] = ()
    pack: Pack | None = None
    offset_bytes: int = 0
    polled: bool = False
    """Each 4-byte word says itself whether the step has written it; there are two copies, steps take turns."""

    @property
    def bytes(self) -> int:
        return int(np.prod(self.padded_shape or self.shape, dtype=np.int64)) * self.dtype.bytes


@dataclass(frozen=True)
class GridOperand:
    """One operand of a grid: ``name`` as its task kind calls it, an index into ``Program.buffers``. ``along``: per
    dimension of the buffer the index dimension that keeps tasks apart at run time, -1 for none (see `sm.box`).
    ``rank_step``: elements by which a box moves from rank to rank, per dimension; empty if it does not. ``pushed``: it
    is written into the memory of the ranks that the task says; ``multicast``: of all, by one store."""

    name: str
    buffer: int
    access: Access
    along: tuple[int, ...] = ()
    rank_step: tuple[int, ...] = ()
    pushed: bool = False
    multicast: bool = False


@dataclass(frozen=True)
class Grid:
    """All tasks of one operation. ``body`` indexes ``Program.bodies``, the switch of the kernel; the reasons are the
    planner's words for the choice of tiles and of SMs. ``ahead``: stages of the ring that loaders have filled, or fill,
    while a task of the grid waits, by the plan; 0 if it streams nothing."""

    name: str
    kind: str
    params: Mapping[str, Any]
    body: int
    extent: tuple[int, ...]
    operands: tuple[GridOperand, ...]
    reason: str = ""
    placement_reason: str = ""
    ahead: int = 0


@dataclass(frozen=True)
class Launch:
    """Shape of the one kernel launch. ``ring_bytes`` of shared memory hold weights in flight."""

    kernel: str
    num_blocks: int
    num_threads: int
    shared_bytes: int
    ring_bytes: int


@dataclass(frozen=True)
class Program:
    """A planned step. Saved to and loaded from a folder of the `files` that hold all of it."""

    name: str
    target: Target
    buffers: tuple[Buffer, ...]
    grids: tuple[Grid, ...]
    bodies: tuple[str, ...]
    tasks: np.ndarray[Any, Any]
    """[tasks] of ``TASK``, sorted by SM; within an SM in the order it runs them."""
    queue_begin: np.ndarray[Any, Any]
    """[SMs + 1] int32: SM s runs ``tasks[queue_begin[s]:queue_begin[s + 1]]``."""
    event_count: np.ndarray[Any, Any]
    """[events] int32: arrivals an event receives in a step."""
    event_polled: np.ndarray[Any, Any]
    """[events] bool: the event stands for what readers see in polled data; the GPU has no counter for it."""
    event_shared: np.ndarray[Any, Any]
    """[events] bool: a task signals the event on every rank to which it pushes, the step event on all;
    ``event_count`` are the arrivals as if all ranks were one."""
    event_names: tuple[str, ...]
    """One name per event tensor element, for messages."""
    step_event: int
    """The event that says a step is over: an SM starts step s when it has s times its arrivals per step. On the GPU one
    arrival of each SM, by its last task, stands for those of the plan (`runtime.binding`)."""
    arena_bytes: int
    source: str
    headers: Mapping[str, str]
    launch: Launch
    constants: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict[str, np.ndarray[Any, Any]])
    """Values, by buffer name, of the weights that come from no parameter (``pack`` is None)."""
    polled_bytes: int = 0
    """Between the two copies of a polled buffer in the arena."""
    ranks: int = 1
    """Each of them runs the whole program, with SMs and memory of its own."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Facts for the host side: batch, rows, max_length, page_size, vocab_size, stop_tokens, statistics."""

    @property
    def multicasts(self) -> bool:
        """Whether a task writes to all ranks by one store."""
        return any(operand.multicast for grid in self.grids for operand in grid.operands)

    def buffer(self, name: str) -> Buffer:
        """The buffer called ``name``. Raises UsageError if there is none."""
        for buffer in self.buffers:
            if buffer.name == name:
                return buffer
        raise UsageError(f"program '{self.name}' has no buffer '{name}'")

    def digest(self) -> str:
        """Equal for programs that may run as ranks of one another: the same tables, source and headers, whatever the
        reasons for them."""
        hashed = hashlib.sha256()
        grids = [replace(grid, reason="", placement_reason="") for grid in self.grids]
        parts = [repr((self.buffers, grids, self.bodies, self.ranks, self.arena_bytes, self.polled_bytes))]
        parts += [self.source, *(f"{name}\n{text}" for name, text in sorted(self.headers.items()))]
        for data in (*(part.encode() for part in parts), *(getattr(self, name).tobytes() for name in _TABLES)):
            hashed.update(len(data).to_bytes(8, "little") + data)
        return hashed.hexdigest()

    def files(self) -> dict[str, bytes]:
        """The whole program as the contents of files by name: `program.json`, `tables.npz`, `constants.npz`,
        `kernel.cu`, `include/...`."""
        facts = {
            "name": self.name,
            "target": self.target.name,
            "buffers": [asdict(buffer) | {"dtype": buffer.dtype.name} for buffer in self.buffers],
            "grids": [asdict(grid) for grid in self.grids],
            "bodies": self.bodies,
            "event_names": self.event_names,
            "step_event": self.step_event,
            "arena_bytes": self.arena_bytes,
            "polled_bytes": self.polled_bytes,
            "ranks": self.ranks,
            "launch": asdict(self.launch),
            "metadata": self.metadata,
        }
        tables = {name: getattr(self, name) for name in _TABLES}
        files = {
            "program.json": (json.dumps(facts, indent=1) + "\n").encode(),
            "tables.npz": _array_file(tables),
            "constants.npz": _array_file(self.constants),
            "kernel.cu": self.source.encode(),
        }
        return files | {f"{_INCLUDE}{name}": text.encode() for name, text in self.headers.items()}

    @staticmethod
    def of_files(files: Mapping[str, bytes]) -> Program:
        """The program of which `files` made ``files``. Raises KeyError, ValueError or BadZipFile for anything else."""
        facts = json.loads(files["program.json"])
        with np.load(BytesIO(files["tables.npz"])) as tables:
            arrays = {name: tables[name] for name in _TABLES}
        with np.load(BytesIO(files["constants.npz"])) as constants:
            values = dict(constants.items())
        headers = {name.removeprefix(_INCLUDE): files[name] for name in sorted(files) if name.startswith(_INCLUDE)}
        return Program(
            name=facts["name"],
            target=target_of(facts["target"]),
            buffers=tuple(_buffer_from(row) for row in facts["buffers"]),
            grids=tuple(_grid_from(row) for row in facts["grids"]),
            bodies=tuple(facts["bodies"]),
            event_names=tuple(facts["event_names"]),
            step_event=facts["step_event"],
            constants=values,
            arena_bytes=facts["arena_bytes"],
            polled_bytes=facts["polled_bytes"],
            ranks=facts["ranks"],
            source=files["kernel.cu"].decode(),
            headers={name: text.decode() for name, text in headers.items()},
            launch=Launch(**facts["launch"]),
            metadata=facts["metadata"],
            **arrays,
        )

    def save(self, folder: Path) -> None:
        """Write the program to ``folder`` (made if missing)."""
        for name, data in self.files().items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    @staticmethod
    def load(folder: Path) -> Program:
        """Read what ``save`` wrote. Raises UsageError if ``folder`` holds no whole program."""
        headers = sorted((folder / _INCLUDE).rglob("*.cuh"))
        paths = [*(folder / name for name in ("program.json", "tables.npz", "constants.npz", "kernel.cu")), *headers]
        try:
            return Program.of_files({str(path.relative_to(folder)): path.read_bytes() for path in paths})
        except (OSError, KeyError, ValueError, BadZipFile) as error:
            raise UsageError(
                f"no readable program: {error}", where=str(folder), advice="write one with `mpk compile --emit program`"
            ) from error


_TABLES = ("tasks", "queue_begin", "event_count", "event_polled", "event_shared")
_INCLUDE = "include/"


def _array_file(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    file = BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _buffer_from(row: dict[str, Any]) -> Buffer:
    return Buffer(
        name=row["name"],
        space=Space(row["space"]),
        shape=tuple(row["shape"]),
        dtype=dtype_of(row["dtype"]),
        layout=Layout(row["layout"]),
        padded_shape=tuple(row["padded_shape"]),
        pack=row["pack"] and _pack_from(row["pack"]),
        offset_bytes=row["offset_bytes"],
        polled=row["polled"],
    )


def _pack_from(row: dict[str, Any]) -> Pack:
    return Pack(tuple(row["sources"]), row["interleave"], tuple(Shard(**shard) for shard in row["shards"]))


def _grid_from(row: dict[str, Any]) -> Grid:
    operands = tuple(
        GridOperand(
            o["name"],
            o["buffer"],
            Access(o["access"]),
            tuple(o["along"]),
            tuple(o["rank_step"]),
            o["pushed"],
            o["multicast"],
        )
        for o in row["operands"]
    )
    params = {key: tuple(v) if isinstance(v, list) else v for key, v in row["params"].items()}
    told = (row.get("reason", ""), row.get("placement_reason", ""), row.get("ahead", 0))
    return Grid(row["name"], row["kind"], params, row["body"], tuple(row["extent"]), operands, *told)
