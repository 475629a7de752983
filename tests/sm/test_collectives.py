"""Collectives that no decoder needs, planned and simulated: what the interpreter says of them, on every rank."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, bf16, i64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region

from mpk_ir.core.dtype import round_to_bf16
from mpk_ir.core.errors import UnsupportedError
from mpk_ir.core.memory import Space
from mpk_ir.dialects import tg
from mpk_ir.interpreter import evaluate_ranks
from mpk_ir.runtime.interleaving import RandomOrder
from mpk_ir.runtime.simulator import Simulator, SimulatorOptions

from .test_ranks import program_of

ROWS, K = 4, 16


def scattered_sum(ranks: int, columns: int, axis: int = 1) -> ModuleOp:
    """Each rank's columns of the sum of products over the ranks."""
    block = Block(arg_types=[tg.tensor((ROWS, K), bf16)])
    weight = tg.ParamOp("w", tg.tensor((columns, K), bf16))
    weight.shard([tg.ShardAttr.of(0, ranks)])  # another one on each rank
    product = tg.LinearOp(block.args[0], weight.result)
    scattered = tg.ReduceScatterOp(product.result, axis, ranks)
    block.add_ops([weight, product, scattered, ReturnOp(scattered.result)])
    function = FuncOp("f", ((block.args[0].type,), (scattered.result.type,)), Region(block))
    function.attributes[tg.RANKS] = IntegerAttr(ranks, i64)
    module = ModuleOp([function])
    module.verify()
    return module


@pytest.mark.parametrize("strategy", ["auto", "off"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_each_rank_gets_its_columns_of_the_sum(ranks: int, strategy: str) -> None:
    module = scattered_sum(ranks, 64 * ranks)
    generator = np.random.default_rng(0)
    x, weight = (round_to_bf16(generator.normal(size=s).astype(np.float32)) for s in ((ROWS, K), (64 * ranks**2, K)))
    program = program_of(module, strategy)
    assert set(program.tasks["push_to"].tolist()) >= set(range(ranks)), "a piece for each rank"
    options = SimulatorOptions(RandomOrder(1), shared_arena=True, delayed_writes=True)
    simulator = Simulator(program, {"w": torch.from_numpy(weight)}, options)
    (given,), (taken,) = ([b.name for b in program.buffers if b.space is s] for s in (Space.INPUT, Space.OUTPUT))
    for rank in range(ranks):
        simulator.write_rank_state(given, x, rank)
    simulator.run(1)
    expected = evaluate_ranks(module, [x], {"w": weight}, [{} for _ in range(ranks)])
    for rank in range(ranks):
        found = simulator.read_state(taken, rank)
        np.testing.assert_allclose(found, expected[rank][0], rtol=0.02, atol=0.05, err_msg=f"rank {rank}")


def test_rows_are_not_scattered() -> None:
    with pytest.raises(UnsupportedError, match=r"tile: tg\.reduce_scatter along dimension 0, expected 1"):
        program_of(scattered_sum(2, 64, axis=0), "auto")
