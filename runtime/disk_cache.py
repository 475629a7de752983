"""Results on disk by name, found again by later processes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_DIGEST_BYTES = hashlib.sha256().digest_size


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/mpk-ir`, else `~/.cache/mpk-ir`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mpk-ir"


@dataclass(frozen=True)
class DiskCache:
    """Entries over ``limit_bytes`` in all go, least recently used first. A folder that cannot be written makes it
    forget, not fail. Two processes may share it: an entry appears whole or not at all."""

    folder: Path = field(default_factory=default_folder)
    limit_bytes: int = 512 << 20

    def read(self, name: str) -> bytes | None:
        """The entry called ``name``, marked as used just now; None if it is absent or damaged."""
        path = self.folder / name
        try:
            data = path.read_bytes()
        except OSError:
            return None
        digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            return None
        with suppress(OSError):  # a shared, read-only cache has no order of use
            os.utime(path)
        return body

    def write(self, name: str, body: bytes) -> None:
        """Keep ``body`` as the entry called ``name``."""
        path = self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(path, body)
            self._evict(keep=path)
        except OSError:
            return  # a read-only or full disk: the result in hand is as good

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


def digest_of(parts: Iterable[str | bytes]) -> str:
    """A name for an entry that follows from ``parts``: other parts, or other borders between them, another name."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _write(path: Path, body: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(body).digest() + body)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
