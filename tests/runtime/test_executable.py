"""Generation from prompts to tokens, on an engine that counts instead of thinking."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mpk_ir.codegen.program import Buffer, Program
from mpk_ir.core.dtype import F32, I32, DType
from mpk_ir.core.errors import UsageError
from mpk_ir.core.memory import Space
from mpk_ir.core.requests import advance_requests
from mpk_ir.executable import STEPS_BETWEEN_STOP_CHECKS, Executable
from mpk_ir.frontend.tokenizer import ByteTokenizer
from mpk_ir.prefill import Prefill, is_worth
from tests.runtime.toy import toy_program

BATCH, ROWS, LENGTH, VOCAB = 3, 4, 200, 300
STATE = ("history", "requests", "rows", "row_count")


def state(name: str, shape: tuple[int, ...], dtype: DType = I32) -> Buffer:
    return Buffer(name, Space.STATE, shape, dtype)


def counting_program(stop_tokens: tuple[int, ...] = ()) -> Program:
    buffers = (
        state("history", (BATCH, LENGTH)),
        state("requests", (BATCH, 6)),
        state("rows", (ROWS, 4)),
        state("row_count", (1,)),
        state("page_table", (BATCH, 5)),
        state("logits", (ROWS, VOCAB), F32),
    )
    return replace(toy_program(), buffers=buffers, metadata={"stop_tokens": stop_tokens, "statistics": {"edges": 7}})


class CountingEngine:
    """After a token comes the next number: the model is token + 1."""

    device_name = "an abacus"

    def __init__(self, program: Program) -> None:
        self.stop_tokens = program.metadata["stop_tokens"]
        self.state = {b.name: np.zeros(b.shape, b.dtype.numpy) for b in program.buffers}
        self.launches: list[int] = []

    def names(self) -> tuple[str, ...]:
        return tuple(self.state)

    def read_state(self, name: str) -> np.ndarray[Any, Any]:
        return self.state[name].copy()

    def write_state(self, name: str, values: np.ndarray[Any, Any]) -> None:
        assert values.shape == self.state[name].shape
        self.state[name] = values.copy()

    def run(self, num_steps: int) -> None:
        self.launches.append(num_steps)
        for _ in range(num_steps):
            sampled = self.state["rows"][:, 0] + 1
            history, requests, rows, row_count = (self.state[name] for name in STATE)
            advance_requests(sampled, history, requests, rows, row_count, self.stop_tokens)

    def synchronize(self) -> None:
        pass


def executable(stop_tokens: tuple[int, ...] = ()) -> tuple[Executable, CountingEngine]:
    program = counting_program(stop_tokens)
    engine = CountingEngine(program)
    return Executable(program, engine, ByteTokenizer(), steps_per_launch=2), engine


def test_a_whole_generation_is_one_launch() -> None:
    model, engine = executable()
    generation = model.generate([[10, 20, 30]], 5)
    assert generation.tokens == [[31, 32, 33, 34, 35]]
    assert engine.launches == [5]
    assert generation.timings.steps == 5
    assert generation.timings.first_token_seconds is None
    assert generation.timings.tokens == 5


def test_requests_of_different_lengths_end_together() -> None:
    model, engine = executable()
    prompts = [[1], list(range(100, 111)), [50, 60]]
    assert model.generate(prompts, 3).tokens == [[2, 3, 4], [111, 112, 113], [61, 62, 63]]
    assert len(engine.launches) == 1
    assert engine.state["page_table"].tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14]]


def test_a_second_generation_starts_afresh() -> None:
    model, _ = executable()
    assert model.generate([[1, 2], [9]], 4).tokens == [[3, 4, 5, 6], [10, 11, 12, 13]]
    assert model.generate([[7]], 2).tokens == [[8, 9]]


def test_streaming_hands_over_each_token_once_and_in_order() -> None:
    model, engine = executable()
    heard: list[tuple[int, int]] = []
    generation = model.generate([[10], [20, 21, 22, 23, 24]], 5, lambda r, t: heard.append((r, t)))
    assert [[token for r, token in heard if r == request] for request in range(2)] == generation.tokens
    assert set(engine.launches[:-1]) == {2}
    assert generation.timings.first_token_seconds is not None
    assert generation.timings.first_token_seconds <= generation.timings.seconds


def test_a_stop_token_ends_its_request_and_is_kept() -> None:
    model, engine = executable(stop_tokens=(13,))
    assert model.generate([[10], [20]], 6).tokens == [[11, 12, 13], [21, 22, 23, 24, 25, 26]]
    assert engine.launches == [6]
    engine.launches.clear()
    assert model.generate([[5]], 150).tokens == [list(range(6, 14))]
    assert engine.launches == [STEPS_BETWEEN_STOP_CHECKS]


def test_one_launch_takes_long_prompts_stop_tokens_and_streams_alike() -> None:
    model, engine = executable(stop_tokens=(13,))
    model.prefill = Prefill(model.program, engine)
    prompt = [200] * 99 + [5]
    assert is_worth([len(prompt)])
    heard: list[tuple[int, int]] = []
    generation = model.generate([prompt], 90, lambda r, t: heard.append((r, t)), one_launch=True)
    assert generation.tokens == [list(range(6, 14))]
    assert heard == [(0, token) for token in range(6, 14)]
    assert engine.launches == [generation.timings.steps]
    assert generation.timings.first_token_seconds is None


def test_text_goes_in_and_comes_out() -> None:
    model, _ = executable()
    generation = model.generate("AB", 3)
    assert generation.text == ["CDE"]
    assert generation.tokens == [[67, 68, 69]]


@pytest.mark.parametrize(
    ("prompts", "new", "message"),
    [
        ([[1]] * 4, 1, "4 prompts, the program serves 1 to 3"),
        ([], 1, "0 prompts"),
        ([[]], 1, "a prompt has no tokens"),
        ([[1], [2, VOCAB]], 1, "prompt 1: token 300 is not in the vocabulary of 300"),
        ([[-1]], 1, "prompt 0: token -1 is not in the vocabulary"),
        ([[1] * 150], 51, "150 prompt tokens and 51 new ones, the program holds 200"),
        ([[1]], 0, "1 prompt tokens and 0 new ones"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(prompts: list[list[int]], new: int, message: str) -> None:
    model, engine = executable()
    with pytest.raises(UsageError, match=message):
        model.generate(prompts, new)
    assert engine.launches == []


def test_the_last_position_can_be_used() -> None:
    model, _ = executable()
    assert model.generate([[1] * 150], 50).tokens == [list(range(2, 52))]


def test_text_without_a_tokenizer_is_refused() -> None:
    program = counting_program()
    with pytest.raises(UsageError, match="no tokenizer"):
        Executable(program, CountingEngine(program)).generate("text", 1)


def test_the_report_says_what_runs_where() -> None:
    report = executable()[0].report()
    assert report["device"] == "an abacus"
    assert report["tasks"] == 16
    assert report["bytes"]["state"] == 4 * (BATCH * LENGTH + BATCH * 6 + ROWS * 4 + 1 + BATCH * 5 + ROWS * VOCAB)
    assert report["statistics"] == {"edges": 7}
