"""Weights that a graph computes of its parameters alone, as Gemma 1 + weight: computed once, when they are bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue

from ...dialects import tg
from ...interpreter import evaluate

if TYPE_CHECKING:
    import torch


def parameters_of(value: SSAValue) -> list[str] | None:
    """The names of the parameters that ``value`` is computed of, in order; None if of anything else."""
    op = value.owner
    if isinstance(op, tg.ParamOp):
        return [op.symbol.data]
    if not isinstance(op, Operation) or isinstance(op, tg.StateOp):
        return None
    found = list[str]()
    for operand in op.operands:
        names = parameters_of(operand)
        if names is None:
            return None
        found += [name for name in names if name not in found]
    return found


def derived(value: SSAValue, tensors: Callable[[str], torch.Tensor]) -> torch.Tensor:
    """``value``, computed in float32 of parameters that ``tensors`` gives by name, flat and where they are."""
    import torch

    block, copies = Block(), dict[SSAValue, SSAValue]()
    _copy(value, block, copies)
    block.add_op(ReturnOp(copies[value]))
    module = ModuleOp([FuncOp("derived", ((), (value.type,)), Region(block))])
    given = {op.symbol.data: (tensors(op.symbol.data), op.result) for op in module.walk() if isinstance(op, tg.ParamOp)}
    arrays = {
        name: tensor.detach().float().cpu().numpy().reshape(tg.shape_of(result))
        for name, (tensor, result) in given.items()
    }
    (array,) = evaluate(module, (), arrays, {})
    (device, *_) = {tensor.device for tensor, _ in given.values()}
    return torch.from_numpy(array.reshape(-1).copy()).to(device)


def _copy(value: SSAValue, block: Block, copies: dict[SSAValue, SSAValue]) -> None:
    """All that ``value`` is computed of, to the end of ``block``."""
    op = value.owner
    assert isinstance(op, Operation)
    for operand in op.operands:
        if operand not in copies:
            _copy(operand, block, copies)
    block.add_op(op.clone(copies))
