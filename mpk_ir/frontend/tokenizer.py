"""Text to token ids and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from ..core.errors import CheckpointError
from .config import read_json

BYTES = 256


class Tokenizer(Protocol):
    """What a checkpoint's tokenizer can do."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...


class ByteTokenizer:
    """A token is a byte of UTF-8; ids from 256 on are special tokens without text."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(token for token in tokens if token < BYTES).decode(errors="replace")


class JsonTokenizer:
    """A `tokenizer.json`, by the tokenizers library."""

    def __init__(self, file: Path) -> None:
        from tokenizers import Tokenizer as Library

        try:
            self._library: Any = Library.from_file(str(file))
        except Exception as error:  # the library raises bare Exception for any damage
            raise CheckpointError(f"cannot be read as a tokenizer: {error}", where=str(file)) from error

    def encode(self, text: str) -> list[int]:
        return self._library.encode(text).ids

    def decode(self, tokens: Sequence[int]) -> str:
        return self._library.decode(list(tokens))


def tokenizer(folder: str | Path) -> Tokenizer | None:
    """The tokenizer of a checkpoint folder, or None if it has none. Raises CheckpointError if its file is damaged.

    A folder without `tokenizer.json` may ask for the byte tokenizer: `{"tokenizer_class": "ByteTokenizer"}` in
    `tokenizer_config.json`.
    """
    folder = Path(folder)
    if (folder / "tokenizer.json").is_file():
        return JsonTokenizer(folder / "tokenizer.json")
    settings = folder / "tokenizer_config.json"
    if settings.is_file() and read_json(settings).get("tokenizer_class") == ByteTokenizer.__name__:
        return ByteTokenizer()
    return None
