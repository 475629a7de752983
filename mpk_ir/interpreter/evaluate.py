"""Runs a `tg` function on arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue

from ..core.errors import UsageError, did_you_mean
from ..dialects import tg
from .meanings import meaning
from .values import Array, assemble_param, hold


def run_step(
    module: ModuleOp, params: Mapping[str, Array], state: dict[str, Array], *, storage_rounding: bool = False
) -> None:
    """Run the function of ``module`` once; its `tg.update`s change ``state`` in place when it ends.

    ``params`` are the checkpoint's tensors by name (float32), ``state`` the states by name: bf16 and f16 held in
    float32. With ``storage_rounding`` every bf16 or f16 result is rounded to its type. Raises UsageError for a missing
    or misshapen parameter or state.
    """
    evaluate(module, (), params, state, storage_rounding=storage_rounding)


def evaluate(
    module: ModuleOp,
    args: Sequence[Array],
    params: Mapping[str, Array],
    state: dict[str, Array],
    *,
    storage_rounding: bool = False,
) -> list[Array]:
    """As `run_step`, for a function that takes ``args`` and returns values."""
    function = _only_function(module)
    run = _Run(params, state, storage_rounding)
    parameters = function.body.block.args
    if len(args) != len(parameters):
        raise UsageError(f"found {len(args)} arguments, @{function.sym_name.data} expects {len(parameters)}")
    for parameter, array in zip(parameters, args, strict=True):
        run.bind(parameter, array)
    for op in function.body.block.ops:
        if isinstance(op, ReturnOp):
            run.commit()
            return [run.values[value] for value in op.operands]
        run.execute(op)
    raise UsageError(f"@{function.sym_name.data} does not end in func.return")


def initial_state(module: ModuleOp) -> dict[str, Array]:
    """Zeros for every state that ``module`` reads or updates."""
    values = {op.symbol.data: op.result for op in module.walk() if isinstance(op, tg.StateOp)}
    values |= {op.symbol.data: op.value for op in module.walk() if isinstance(op, tg.UpdateOp)}
    return {name: hold(np.zeros(tg.shape_of(value)), tg.element_of(value), False) for name, value in values.items()}


def _only_function(module: ModuleOp) -> FuncOp:
    functions = [op for op in module.ops if isinstance(op, FuncOp)]
    if len(functions) != 1:
        raise UsageError(f"found {len(functions)} functions in the module, expected one")
    return functions[0]


class _Run:
    """The values of one evaluation. Updates wait in ``pending``: a state is what it was at the start until the end."""

    def __init__(self, params: Mapping[str, Array], state: dict[str, Array], storage_rounding: bool) -> None:
        self.params = params
        self.state = state
        self.storage_rounding = storage_rounding
        self.values: dict[SSAValue, Array] = {}
        self.pending: dict[str, Array] = {}

    def execute(self, op: Operation) -> None:
        if isinstance(op, tg.UpdateOp):
            self.pending[op.symbol.data] = self.values[op.value]
        elif isinstance(op, tg.ParamOp):
            self.bind(op.result, assemble_param(op, self.params))
        elif isinstance(op, tg.StateOp):
            self.bind(op.result, self._find_state(op.symbol.data))
        else:
            for value, array in zip(op.results, meaning(op, self.values.__getitem__), strict=True):
                self.bind(value, array)

    def bind(self, value: SSAValue, array: Array) -> None:
        expected = tg.shape_of(value)
        if array.shape != expected:
            raise UsageError(
                f"'{value.name_hint}': found an array of shape {list(array.shape)}, expected {list(expected)}"
            )
        self.values[value] = hold(array, tg.element_of(value), self.storage_rounding)

    def commit(self) -> None:
        # Copied first: what is stored in one state may be the start value of another.
        ends = {name: array.copy() for name, array in self.pending.items()}
        for name, array in ends.items():
            np.copyto(self._find_state(name), array)

    def _find_state(self, name: str) -> Array:
        if name not in self.state:
            raise UsageError(f"no state '{name}'", advice=did_you_mean(name, self.state))
        return self.state[name]
