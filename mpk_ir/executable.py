"""A compiled model ready to run: prompts in, tokens out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .core.errors import UsageError
from .core.memory import Space
from .core.requests import Int32Array, RequestColumn, advance_requests, assign_rows
from .prefill import is_worth

if TYPE_CHECKING:
    from .codegen.program import Program
    from .frontend.tokenizer import Tokenizer
    from .prefill import Prefill
    from .runtime.engine import Engine

Prompts: TypeAlias = "str | Sequence[str] | Sequence[Sequence[int]]"
OnToken: TypeAlias = Callable[[int, int], None]
"""Called with a request's number and its next token."""

_STATE_NAMES = ("history", "requests", "rows", "row_count")

STEPS_BETWEEN_STOP_CHECKS = 64
"""Steps of one launch when a stop token may end the generation: past it at most this many run idle."""


@dataclass(frozen=True)
class Timings:
    """Seconds on the host's clock. ``first_token_seconds``: until every request had a token; None in one launch."""

    seconds: float
    first_token_seconds: float | None
    steps: int
    tokens: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


@dataclass(frozen=True)
class Generation:
    """The new tokens of each request, a stop token included; their text if there is a tokenizer."""

    tokens: list[list[int]]
    text: list[str] | None
    timings: Timings


@dataclass
class _State:
    """The request state of `core.requests`, on the host."""

    history: Int32Array
    requests: Int32Array
    rows: Int32Array
    row_count: Int32Array

    def steps_left(self) -> int:
        """Steps until all requests end, if none meets a stop token."""
        ahead = _State(*(array.copy() for array in (self.history, self.requests, self.rows, self.row_count)))
        nothing, steps = np.zeros(len(self.rows), np.int32), 0
        while ahead.row_count[0]:
            advance_requests(nothing, ahead.history, ahead.requests, ahead.rows, ahead.row_count)
            steps += 1
        return steps


class Executable:
    """``program`` on ``engine``. ``steps_per_launch`` is how often a streaming generation hands tokens over;
    ``prefill`` takes prompts that are worth it."""

    def __init__(
        self,
        program: Program,
        engine: Engine,
        tokenizer: Tokenizer | None = None,
        steps_per_launch: int = 8,
        prefill: Prefill | None = None,
    ) -> None:
        self.program = program
        self.engine = engine
        self.tokenizer = tokenizer
        self.steps_per_launch = steps_per_launch
        self.prefill = prefill
        self.batch, self.max_length = program.buffer("history").shape
        self.vocab_size = int(program.metadata.get("vocab_size", program.buffer("logits").shape[1]))

    def generate(
        self, prompts: Prompts, max_new_tokens: int, on_token: OnToken | None = None, *, one_launch: bool = False
    ) -> Generation:
        """Continue each prompt (text, or token ids) by at most ``max_new_tokens``, to a stop token at the latest.

        All steps run in one launch, unless tokens are handed over as they come or a stop token may end it early; long
        prompts have one of their own before, if there is a `prefill`. ``one_launch`` takes prompts and all new tokens
        in a single launch whatever they are: tokens are handed over at its end, steps behind a stop token run idle.
        Raises UsageError for prompts that don't fit the program; what `Engine.synchronize` raises.
        """
        tokens = self.encode(prompts)
        lengths = [len(request) for request in tokens]
        state = self.begin(tokens, max_new_tokens)
        begin, first_token, steps = time.perf_counter(), None, 0
        known = lengths
        while left := state.steps_left():
            if steps == 0 and self.prefill is not None and is_worth(lengths) and not one_launch:
                launched = self._prefill(self.prefill, state)
                left = launched + state.steps_left()
            else:
                launched = left if one_launch else min(left, self._steps_per_launch(streaming=on_token is not None))
                self.engine.run(launched)
                state = self._read_state()
            steps += launched
            reached = state.requests[: len(tokens), RequestColumn.KNOWN].tolist()
            if on_token is not None:
                _hand_over(on_token, state.history, known, reached)
            known = reached
            if first_token is None and launched < left and all(map(int.__lt__, lengths, known)):
                first_token = time.perf_counter() - begin
        seconds = time.perf_counter() - begin
        new = [state.history[r, first:end].tolist() for r, (first, end) in enumerate(zip(lengths, known, strict=True))]
        text = [self.tokenizer.decode(request) for request in new] if self.tokenizer else None
        return Generation(new, text, Timings(seconds, first_token, steps, sum(map(len, new))))

    def encode(self, prompts: Prompts) -> list[list[int]]:
        """``prompts`` as token ids, one list per request. Raises UsageError if they don't fit the model."""
        listed = [prompts] if isinstance(prompts, str) else list(prompts)
        tokens = [encode_prompt(prompt, self.tokenizer) for prompt in listed]
        if not 0 < len(tokens) <= self.batch:
            raise UsageError(f"{len(tokens)} prompts, the program serves 1 to {self.batch}", advice="compile for more")
        for request, ids in enumerate(tokens):
            wrong = [token for token in ids if not 0 <= token < self.vocab_size]
            if wrong:
                raise UsageError(f"prompt {request}: token {wrong[0]} is not in the vocabulary of {self.vocab_size}")
        return tokens

    def report(self) -> dict[str, Any]:
        """What runs where: counts, bytes by space, and the compiler's statistics."""
        program = self.program
        bytes_of = {space.value: 0 for space in Space}
        for buffer in program.buffers:
            bytes_of[buffer.space.value] += buffer.bytes
        return {
            "program": program.name,
            "target": program.target.name,
            "device": self.engine.device_name,
            "grids": len(program.grids),
            "tasks": len(program.tasks),
            "events": len(program.event_count),
            "signatures": len(program.bodies),
            "bytes": bytes_of | {Space.SCRATCH.value: program.arena_bytes},
            "statistics": dict(program.metadata.get("statistics", {})),
        }

    def begin(self, tokens: list[list[int]], max_new_tokens: int) -> _State:
        """Hand the engine the requests; cache pages are dealt in order, as many to each request."""
        longest = max(map(len, tokens))
        if max_new_tokens < 1 or longest + max_new_tokens > self.max_length:
            raise UsageError(
                f"{longest} prompt tokens and {max_new_tokens} new ones, the program holds {self.max_length}",
                advice="ask for 1 or more new tokens, or compile for a greater max_length",
            )
        shapes = {name: self.program.buffer(name).shape for name in (*_STATE_NAMES, "page_table")}
        state = _State(*(np.zeros(shapes[name], np.int32) for name in _STATE_NAMES))
        for request, ids in enumerate(tokens):
            state.history[request, : len(ids)] = ids
            known = (RequestColumn.PROMPT_LENGTH, RequestColumn.KNOWN)
            state.requests[request, known] = len(ids)
            state.requests[request, RequestColumn.STOP_LENGTH] = len(ids) + max_new_tokens
        assign_rows(state.history, state.requests, state.rows, state.row_count)
        for name in _STATE_NAMES:
            self.engine.write_state(name, getattr(state, name))
        pages = np.arange(np.prod(shapes["page_table"]), dtype=np.int32).reshape(shapes["page_table"])
        self.engine.write_state("page_table", pages)
        return state

    def _prefill(self, prefill: Prefill, state: _State) -> int:
        """Take the prompts of ``state``, which is then what this program goes on with; the number of steps."""
        steps = prefill.run(state.history, state.requests)
        assign_rows(state.history, state.requests, state.rows, state.row_count)
        for name in ("requests", "rows", "row_count"):
            self.engine.write_state(name, getattr(state, name))
        return steps

    def _read_state(self) -> _State:
        return _State(*(self.engine.read_state(name) for name in _STATE_NAMES))

    def _steps_per_launch(self, *, streaming: bool) -> int:
        if streaming:
            return self.steps_per_launch
        return STEPS_BETWEEN_STOP_CHECKS if self.program.metadata.get("stop_tokens") else self.max_length


def encode_prompt(prompt: str | Sequence[int], tokenizer: Tokenizer | None) -> list[int]:
    """``prompt`` as token ids. Raises UsageError for text without a tokenizer, and if there is not one token."""
    if not isinstance(prompt, str):
        tokens = [int(token) for token in prompt]
    elif tokenizer is None:
        raise UsageError("the checkpoint has no tokenizer", advice="give token ids instead of text")
    else:
        tokens = tokenizer.encode(prompt)
    if not tokens:
        raise UsageError("a prompt has no tokens", advice="give at least one")
    return tokens


def _hand_over(on_token: OnToken, history: Int32Array, known: list[int], reached: list[int]) -> None:
    for request, (first, end) in enumerate(zip(known, reached, strict=True)):
        for token in history[request, first:end].tolist():
            on_token(request, token)
