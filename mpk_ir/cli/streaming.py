"""Text as it comes: on stdout, with what it took on stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..executable import Executable, Generation
    from ..frontend import Tokenizer
    from .progress import Progress

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer makes of the first bytes of a character whose last ones are still to come."""


class TextStream:
    """Turns tokens into text, piece by piece, never cutting a character in two; without a tokenizer, into ids."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._shown = 0

    def add(self, token: int) -> str:
        """The text that ``token`` completes."""
        self._tokens.append(token)
        return self._take(self._text().rstrip(UNFINISHED))

    def finish(self) -> str:
        """What is left, be it half a character."""
        return self._take(self._text())

    def _text(self) -> str:
        if self._tokenizer is None:
            return "".join(f"{token} " for token in self._tokens)
        return self._tokenizer.decode(self._tokens)

    def _take(self, text: str) -> str:
        new = text[self._shown :]
        self._shown += len(new)
        return new


def generate_streaming(
    executable: Executable, prompts: list[list[int]], max_new_tokens: int, progress: Progress, *, one_launch: bool
) -> Generation:
    """Generate and print: one request as its text comes, several, or what ``one_launch`` yields, when all are done."""
    if len(prompts) == 1:
        return _generate_one(executable, prompts, max_new_tokens, progress, one_launch=one_launch)
    with progress.bar("generating", total=len(prompts) * max_new_tokens) as advance:
        generation = executable.generate(
            prompts, max_new_tokens, lambda _request, _token: advance(), one_launch=one_launch
        )
    for request, tokens in enumerate(generation.tokens):
        text = generation.text[request] if generation.text else " ".join(map(str, tokens))
        print(f"[{request}] {text}")
    return generation


def _generate_one(
    executable: Executable, prompts: list[list[int]], max_new_tokens: int, progress: Progress, *, one_launch: bool
) -> Generation:
    stream = TextStream(executable.tokenizer)
    live = sys.stdout.isatty()

    def show(_request: int, token: int) -> None:
        sys.stdout.write(stream.add(token))
        sys.stdout.flush()
        advance()

    # On a terminal the text itself is the progress; a bar would be drawn through it.
    with progress.bar("generating", max_new_tokens, hidden=live) as advance:
        generation = executable.generate(prompts, max_new_tokens, show, one_launch=one_launch)
    print(stream.finish())
    return generation
