"""Compiled kernels on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .disk_cache import DiskCache, default_folder, digest_of
from .nvrtc import CompiledKernel, NvrtcOptions, Resources, compile_source, nvrtc_version

_FORMAT = "mpk-ir kernel 1"
_SUFFIX = ".kernel"


@dataclass(frozen=True)
class KernelCache:
    """``compile`` is `compile_source` that remembers, in a `DiskCache`."""

    folder: Path = field(default_factory=default_folder)
    limit_bytes: int = DiskCache.limit_bytes

    def compile(
        self, source: str, headers: Mapping[str, str], arch: str, options: NvrtcOptions | None = None
    ) -> CompiledKernel:
        """The kernel of ``source``, from disk if it was compiled before. Raises KernelCompileError."""
        disk = DiskCache(self.folder, self.limit_bytes)
        name = _key(source, headers, arch, options or NvrtcOptions()) + _SUFFIX
        kept = disk.read(name)
        if kept is not None:
            return _unpacked(kept)
        kernel = compile_source(source, headers, arch, options)
        disk.write(name, _packed(kernel))
        return kernel


def _key(source: str, headers: Mapping[str, str], arch: str, options: NvrtcOptions) -> str:
    parts = [_FORMAT, str(nvrtc_version()), *options.arguments(arch), "", source]
    return digest_of([*parts, *(part for name in sorted(headers) for part in (name, headers[name]))])


def _packed(kernel: CompiledKernel) -> bytes:
    resources = {name: asdict(row) for name, row in kernel.resources.items()}
    facts = {"log": kernel.log, "seconds": kernel.seconds, "resources": resources}
    return json.dumps(facts).encode() + b"\n" + kernel.cubin


def _unpacked(body: bytes) -> CompiledKernel:
    head, cubin = body.split(b"\n", 1)
    facts = json.loads(head)
    resources = {name: Resources(**row) for name, row in facts["resources"].items()}
    return CompiledKernel(cubin, facts["log"], resources, facts["seconds"])
