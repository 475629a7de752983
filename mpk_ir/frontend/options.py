"""How much one step of a model serves."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import UsageError


@dataclass(frozen=True)
class StepOptions:
    """The capacity of a step: ``batch`` requests, ``rows`` tokens a step, ``max_length`` positions a request.

    Caches are in pages of ``page_size`` positions. A token of ``stop_tokens`` ends its request. ``last_rows``: only the
    last row of each request goes through the head, as suits a step whose rows are pieces of prompts.
    """

    batch: int = 1
    rows: int = 16
    max_length: int = 2048
    page_size: int = 64
    stop_tokens: tuple[int, ...] = ()
    last_rows: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "rows", "max_length", "page_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: found {getattr(self, name)}, expected 1 or more")

    @property
    def pages_per_request(self) -> int:
        return -(-self.max_length // self.page_size)

    @property
    def pages(self) -> int:
        return self.batch * self.pages_per_request
