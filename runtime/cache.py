"""Compiled kernels on disk. Two processes may share the folder: an entry appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .nvrtc import CompiledKernel, NvrtcOptions, Resources, compile_source, nvrtc_version

_FORMAT = "mpk-ir kernel 1"
_SUFFIX = ".kernel"


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/mpk-ir`, else `~/.cache/mpk-ir`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mpk-ir"


@dataclass(frozen=True)
class KernelCache:
    """``compile`` is `compile_source` that remembers. Entries over ``limit_bytes`` in all go, least recently used
    first. A folder that cannot be written makes it forget, not fail."""

    folder: Path = field(default_factory=default_folder)
    limit_bytes: int = 512 << 20

    def compile(
        self, source: str, headers: Mapping[str, str], arch: str, options: NvrtcOptions | None = None
    ) -> CompiledKernel:
        """The kernel of ``source``, from disk if it was compiled before. Raises KernelCompileError."""
        path = self.folder / (_key(source, headers, arch, options or NvrtcOptions()) + _SUFFIX)
        kernel = _read(path)
        if kernel is None:
            kernel = compile_source(source, headers, arch, options)
            self._store(path, kernel)
        return kernel

    def _store(self, path: Path, kernel: CompiledKernel) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(path, kernel)
            self._evict(keep=path)
        except OSError:
            return  # a read-only or full disk: the kernel in hand is as good

    def _evict(self, keep: Path) -> None:
        entries: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():  # what a killed process left half written, too
            try:
                facts = path.stat()
            except FileNotFoundError:  # another process evicts too
                continue
            entries.append((facts.st_mtime, facts.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.limit_bytes:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                total -= size


def _key(source: str, headers: Mapping[str, str], arch: str, options: NvrtcOptions) -> str:
    parts = [_FORMAT, str(nvrtc_version()), *options.arguments(arch), "", source]
    parts += [part for name in sorted(headers) for part in (name, headers[name])]
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _write(path: Path, kernel: CompiledKernel) -> None:
    resources = {name: asdict(row) for name, row in kernel.resources.items()}
    facts = {"log": kernel.log, "seconds": kernel.seconds, "resources": resources}
    body = json.dumps(facts).encode() + b"\n" + kernel.cubin
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(body).digest() + body)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read(path: Path) -> CompiledKernel | None:
    """The entry at ``path``, marked as used just now; None if it is absent or damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, body = data[:32], data[32:]
    if hashlib.sha256(body).digest() != digest:
        return None
    with suppress(OSError):  # a shared, read-only cache has no order of use
        os.utime(path)
    head, cubin = body.split(b"\n", 1)
    facts = json.loads(head)
    resources = {name: Resources(**row) for name, row in facts["resources"].items()}
    return CompiledKernel(cubin, facts["log"], resources, facts["seconds"])
