"""The checkpoint under examples/ continues a prompt with text one can read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from xdsl.context import Context

from mpk_ir.frontend import StepOptions, build_step, open_checkpoint, tokenizer, weight_shapes
from mpk_ir.passes.tg.fuse import TgFuse
from mpk_ir.passes.tg.merge_linears import TgMergeLinears

FOLDER = Path(__file__).parents[2] / "examples" / "tiny_qwen3" / "checkpoint"
TEXT = """\
The Zen of Python, by Tim Peters

Beautiful is better than ugly.
"""


@pytest.mark.parametrize("fused", [False, True])
def test_it_knows_how_the_zen_goes_on(fused: bool, serve: Callable[..., Any]) -> None:
    checkpoint, text = open_checkpoint(FOLDER), tokenizer(FOLDER)
    assert text is not None
    module = build_step(checkpoint.config, StepOptions(batch=1, rows=16, max_length=96, page_size=32))
    for each in (TgMergeLinears(), TgFuse()) if fused else ():
        each.apply(Context(), module)
    prompt = text.encode(TEXT[:17])
    params = {name: checkpoint.array(name) for name in weight_shapes(checkpoint.config)}
    histories, _ = serve(module, params, [prompt], new_tokens=len(TEXT) - len(prompt))
    assert text.decode(histories[0].tolist()) == TEXT


def test_it_is_small_enough_to_be_committed() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 4e6
