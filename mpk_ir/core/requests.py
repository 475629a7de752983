"""Requests and rows: the state that says which tokens a step computes. The only declaration of its columns.

A *request* is one sequence being served; a *row* is one token position computed in a step. A step has a fixed
capacity of rows; a request that decodes has one row in a step, one that prefills has several (a chunk of its prompt).
Rows of one request are contiguous and in order of position; inactive rows come last.

State tensors (all i32), for B requests, R rows, L positions:

| name         | shape  | meaning                                                        |
| ------------ | ------ | -------------------------------------------------------------- |
| `history`    | [B, L] | prompt tokens, then generated ones                              |
| `requests`   | [B, 6] | columns `RequestColumn`                                        |
| `rows`       | [R, 4] | columns `RowColumn`                                            |
| `row_count`  | [1]    | number of active rows                                          |
| `page_table` | [B, P] | cache page of each request's block of `page_size` positions    |
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

Int32Array = np.ndarray[Any, np.dtype[np.int32]]


ROW_COUNT = "row_count"
"""The state that says how many rows of a step are active."""


class RequestColumn(IntEnum):
    """Columns of `requests`, one row a request."""

    FIRST_ROW = 0
    NUM_ROWS = 1
    CACHED = 2
    """Positions already in the cache before this step."""
    PROMPT_LENGTH = 3
    KNOWN = 4
    """Tokens in `history` so far: prompt plus generated."""
    STOP_LENGTH = 5
    """The request ends when KNOWN reaches this."""


class RowColumn(IntEnum):
    """Columns of `rows`, one row a token position of the step."""

    TOKEN = 0
    REQUEST = 1
    """-1 in an inactive row."""
    POSITION = 2
    SAMPLES = 3
    """1 if the token chosen from this row is kept: it is the last known token of its request."""


def assign_rows(history: Int32Array, requests: Int32Array, rows: Int32Array, row_count: Int32Array) -> None:
    """Fill ``rows``, ``row_count`` and each request's FIRST_ROW and NUM_ROWS for the next step, in place.

    A request is pending while KNOWN < STOP_LENGTH; its pending positions are CACHED .. KNOWN-1. Every pending request
    gets one row if there is room; the rows left go to requests in order, each as many as it has pending.
    """
    capacity = rows.shape[0]
    known, cached = requests[:, RequestColumn.KNOWN], requests[:, RequestColumn.CACHED]
    pending = np.where(known < requests[:, RequestColumn.STOP_LENGTH], known - cached, 0)
    active = np.flatnonzero(pending > 0)[:capacity]
    share = np.zeros_like(pending)
    share[active] = 1
    spare = capacity - len(active)
    for request in active:
        extra = min(spare, int(pending[request]) - 1)
        share[request] += extra
        spare -= extra
    requests[:, RequestColumn.NUM_ROWS] = share
    requests[:, RequestColumn.FIRST_ROW] = np.cumsum(share) - share
    row_count[0] = share.sum()
    rows[:] = (0, -1, 0, 0)
    for request in np.flatnonzero(share):
        first, count, start = requests[request, RequestColumn.FIRST_ROW], share[request], cached[request]
        for offset in range(count):
            position = start + offset
            samples = int(position + 1 == known[request])
            rows[first + offset] = (history[request, position], request, position, samples)


def last_rows(requests: Int32Array) -> Int32Array:
    """The last row of each request that has rows in the step, in order."""
    first, count = requests[:, RequestColumn.FIRST_ROW], requests[:, RequestColumn.NUM_ROWS]
    return (first + count - 1)[count > 0]


def by_row(chosen: Int32Array, requests: Int32Array, rows: int) -> Int32Array:
    """[rows]: tokens ``chosen`` [B] for `last_rows`, in their order, each in its row."""
    last, sampled = last_rows(requests), np.zeros(rows, np.int32)
    sampled[last] = chosen[: len(last)]
    return sampled


def advance_requests(
    sampled: Int32Array,
    history: Int32Array,
    requests: Int32Array,
    rows: Int32Array,
    row_count: Int32Array,
    stop_tokens: tuple[int, ...] = (),
) -> None:
    """End a step in place: keep the tokens ``sampled`` [R] chose, then assign the rows of the next step."""
    for row in range(int(row_count[0])):
        request = rows[row, RowColumn.REQUEST]
        if not rows[row, RowColumn.SAMPLES]:
            continue
        state = requests[request]
        history[request, state[RequestColumn.KNOWN]] = sampled[row]
        state[RequestColumn.KNOWN] += 1
        if int(sampled[row]) in stop_tokens:
            state[RequestColumn.STOP_LENGTH] = state[RequestColumn.KNOWN]
    requests[:, RequestColumn.CACHED] += requests[:, RequestColumn.NUM_ROWS]
    assign_rows(history, requests, rows, row_count)
