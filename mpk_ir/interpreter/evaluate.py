"""Runs a `tg` function on arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue

from ..core.errors import UsageError, did_you_mean
from ..dialects import tg
from .exchange import depends_on_rank, exchange
from .meanings import meaning
from .values import Array, assemble_param, hold, take_shard


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
    return evaluate_ranks(module, args, params, [state], storage_rounding=storage_rounding)[0]


def evaluate_ranks(
    module: ModuleOp,
    args: Sequence[Array],
    params: Mapping[str, Array],
    states: Sequence[dict[str, Array]],
    *,
    storage_rounding: bool = False,
) -> list[list[Array]]:
    """As `evaluate`, on as many ranks as there are ``states``, op by op in lockstep; the results of each rank.

    ``params`` are whole: each rank takes its shards. A state is that of a rank. Raises UsageError if the function is
    for another number of ranks.
    """
    function = _only_function(module)
    _check_ranks(function, len(states))
    runs = [_Run(params, state, storage_rounding, rank, len(states)) for rank, state in enumerate(states)]
    parameters = function.body.block.args
    if len(args) != len(parameters):
        raise UsageError(f"found {len(args)} arguments, @{function.sym_name.data} expects {len(parameters)}")
    for run in runs:
        for parameter, array in zip(parameters, args, strict=True):
            run.bind(parameter, array)
    for op in function.body.block.ops:
        if isinstance(op, ReturnOp):
            for run in runs:
                run.commit()
            return [[run.values[value] for value in op.operands] for run in runs]
        _execute(op, runs)
    raise UsageError(f"@{function.sym_name.data} does not end in func.return")


def _execute(op: Operation, runs: Sequence[_Run]) -> None:
    if not depends_on_rank(op):
        for run in runs:
            run.execute(op)
        return
    results = exchange(op, [run.values.__getitem__ for run in runs])
    for run, arrays in zip(runs, results, strict=True):
        for value, array in zip(op.results, arrays, strict=True):
            run.bind(value, array)


def _check_ranks(function: FuncOp, found: int) -> None:
    recorded = function.attributes.get(tg.RANKS)
    expected = recorded.value.data if isinstance(recorded, IntegerAttr) else 1
    if found != expected:
        raise UsageError(f"@{function.sym_name.data} is for {expected} ranks, found {found} states, one for each rank")


def initial_state(module: ModuleOp) -> dict[str, Array]:
    """Zeros for every state that ``module`` reads or updates."""
    values = {op.symbol.data: op.result for op in module.walk() if isinstance(op, tg.StateOp)}
    values |= {op.symbol.data: op.value for op in module.walk() if isinstance(op, tg.UpdateOp)}
    return {name: hold(np.zeros(tg.shape_of(value)), tg.element_of(value), False) for name, value in values.items()}


def shard_state(module: ModuleOp, state: Mapping[str, Array], rank: int, ranks: int) -> dict[str, Array]:
    """A copy of what ``rank`` of ``ranks`` has of the whole ``state``, for a function that `tg-shard` made."""
    shards = {op.symbol.data: op.shard for op in module.walk() if isinstance(op, tg.StateOp | tg.UpdateOp)}
    whole = tg.ShardAttr.of(0, 1)
    return {
        name: take_shard(name, array, shards.get(name) or whole, rank, ranks).copy() for name, array in state.items()
    }


def _only_function(module: ModuleOp) -> FuncOp:
    functions = [op for op in module.ops if isinstance(op, FuncOp)]
    if len(functions) != 1:
        raise UsageError(f"found {len(functions)} functions in the module, expected one")
    return functions[0]


class _Run:
    """The values of one evaluation on one rank.

    Updates wait in ``pending``: a state is what it was at the start until the end.
    """

    def __init__(
        self, params: Mapping[str, Array], state: dict[str, Array], storage_rounding: bool, rank: int, ranks: int
    ) -> None:
        self.params = params
        self.state = state
        self.storage_rounding = storage_rounding
        self.rank = rank
        self.ranks = ranks
        self.values: dict[SSAValue, Array] = {}
        self.pending: dict[str, Array] = {}

    def execute(self, op: Operation) -> None:
        if isinstance(op, tg.UpdateOp):
            self.pending[op.symbol.data] = self.values[op.value]
        elif isinstance(op, tg.ParamOp):
            self.bind(op.result, assemble_param(op, self.params, self.rank, self.ranks))
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
