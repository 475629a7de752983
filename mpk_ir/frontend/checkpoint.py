"""A checkpoint folder's tensors, checked against its config before any is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import CheckpointError, did_you_mean
from ..core.ranks import Rank, Shard
from .config import ModelConfig, load_config, read_json
from .weights import weight_shapes

if TYPE_CHECKING:
    import torch

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_LENGTH_BYTES = 8
_DTYPE_NAMES = {"BF16": "bf16", "F16": "f16", "F32": "f32"}


@dataclass(frozen=True)
class TensorEntry:
    """What a file's header says of one tensor."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


@dataclass
class Checkpoint:
    """The weights of a model. Files are opened when a tensor of theirs is first asked for."""

    folder: Path
    config: ModelConfig
    entries: Mapping[str, TensorEntry]
    _open_files: dict[Path, Any] = field(default_factory=dict[Path, Any])

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor called ``name``, in the checkpoint's dtype. Raises CheckpointError if there is none."""
        return self._file(self._entry(name).file).get_tensor(name)

    def __call__(self, name: str) -> torch.Tensor:
        """As `tensor`: a checkpoint is a loader of parameters."""
        return self.tensor(name)

    def piece(self, name: str, shard: Shard, rank: Rank) -> torch.Tensor:
        """What ``rank`` holds of the tensor called ``name``; no more of the file is read.

        Raises CheckpointError if there is no such tensor, or if it is not in equal parts.
        """
        entry = self._entry(name)
        if len(entry.shape) <= shard.dim or entry.shape[shard.dim] % shard.parts:
            raise CheckpointError(
                f"tensor '{name}': found {list(entry.shape)}, expected {shard.parts} equal parts of dimension "
                f"{shard.dim}",
                where=str(entry.file),
            )
        return self._file(entry.file).get_slice(name)[rank.piece(shard, entry.shape)]

    def _entry(self, name: str) -> TensorEntry:
        if name not in self.entries:
            raise CheckpointError(
                f"no tensor '{name}'", where=str(self.folder), advice=did_you_mean(name, self.entries)
            )
        return self.entries[name]

    def array(self, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The tensor called ``name`` as float32. Raises CheckpointError if there is none."""
        return self.tensor(name).float().numpy()

    def _file(self, path: Path) -> Any:
        if path not in self._open_files:
            from safetensors import SafetensorError, safe_open

            try:
                self._open_files[path] = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"cannot be read: {error}", where=str(path)) from error
        return self._open_files[path]


def open_checkpoint(folder: str | Path) -> Checkpoint:
    """Open a Hugging Face checkpoint folder, reading only headers.

    Raises CheckpointError if a file is missing, cut short or damaged, or if a tensor the config asks for is missing
    or has another shape or dtype; UnsupportedError as `load_config`.
    """
    folder = Path(folder)
    config = load_config(folder)
    entries = _read_entries(folder)
    for name, shape in weight_shapes(config).items():
        _check(name, entries.get(name), shape, config, folder)
    return Checkpoint(folder, config, entries)


def _read_entries(folder: Path) -> dict[str, TensorEntry]:
    """Every tensor of the one file, or of the files an index lists."""
    index = folder / INDEX_FILE
    if not index.is_file():
        return _read_header(folder / SINGLE_FILE)
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"weight_map: found {weight_map!r}, expected an object", where=str(index))
    headers = {name: _read_header(folder / name) for name in sorted(set(weight_map.values()))}
    entries: dict[str, TensorEntry] = {}
    for tensor, file in weight_map.items():
        if tensor not in headers[file]:
            raise CheckpointError(
                f"the index places tensor '{tensor}' here, but there is none", where=str(folder / file)
            )
        entries[tensor] = headers[file][tensor]
    return entries


def _read_header(file: Path) -> dict[str, TensorEntry]:
    """The header of a safetensors file: 8 bytes of length, JSON, data. Raises CheckpointError if it is damaged."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            header = json.loads(stream.read(min(length, size)))
        header.pop("__metadata__", None)
        end = max((row["data_offsets"][1] for row in header.values()), default=0)
        entries = {
            name: TensorEntry(file, tuple(row["shape"]), _DTYPE_NAMES.get(row["dtype"], str(row["dtype"])))
            for name, row in header.items()
        }
    except FileNotFoundError as error:
        raise CheckpointError(f"no {file.name}", where=str(file.parent)) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise CheckpointError(f"not a safetensors file, or damaged: {error}", where=str(file)) from error
    expected = _LENGTH_BYTES + length + end
    if size != expected:
        raise CheckpointError(
            f"found {size} bytes, expected {expected}", where=str(file), advice="the file is cut short: fetch it again"
        )
    return entries


def _check(name: str, entry: TensorEntry | None, shape: tuple[int, ...], config: ModelConfig, folder: Path) -> None:
    if entry is None:
        raise CheckpointError(
            f"tensor '{name}' is missing, expected {config.dtype.name}{list(shape)}", where=str(folder)
        )
    found, expected = (entry.dtype, entry.shape), (config.dtype.name, shape)
    if found != expected:
        raise CheckpointError(
            f"tensor '{name}': found {found[0]}{list(found[1])}, expected {expected[0]}{list(expected[1])}",
            where=str(entry.file),
        )
