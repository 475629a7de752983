"""From the exported graph of a decoder with a static cache to the step that `frontend.step` would have built.

The graph computes R tokens of one sequence: values [1, R, C] become rows [R, C], values [1, H, R, D] heads [R, H, D].
What ties rows together is attention alone, so that is what must be recognized: queries, the caches with their new keys
and values, scale, causal mask. The rest of the graph is kept as it is, row by row. As in `frontend.step` the step is
computed in bf16 with sums in f32, whatever the dtype of the model: weights are rounded when they are bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from xdsl.dialects.builtin import ModuleOp, bf16, f32, i32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue

from ...core.errors import UnsupportedError
from ...core.requests import RequestColumn, RowColumn
from ...dialects import tg
from ...dialects.locations import location_of
from ...passes.tg.matching import made_by, unshaped
from ..options import StepOptions
from .attention import AttentionForm, NotRecognized, attention_form, rope_form, soft_capped
from .derived import derived, parameters_of
from .formula import formula

if TYPE_CHECKING:
    import torch

Tensors = Callable[[str], "torch.Tensor"]
STATES = ("history", "requests", "rows", "row_count", "page_table")


@dataclass(frozen=True)
class Decoder:
    """``module`` is the step; ``vocab_size`` the columns of its logits; ``weights`` gives what is bound to each of its
    parameters."""

    module: ModuleOp
    vocab_size: int
    weights: Mapping[str, Callable[[], torch.Tensor]]


def raise_decoder(graph: ModuleOp, tensors: Tensors, options: StepOptions, window: int = 0) -> Decoder:
    """The step of an exported decoder, after `tg-raise`. ``tensors`` gives parameters by name; ``window`` is that of
    the layers whose masks have one that is longer than the cache, 0 if it hides nothing.

    Raises UnsupportedError that says which op is not recognized as part of a decoder, and its line of Python.
    """
    raiser = _Raiser(graph, tensors, options, window)
    try:
        return raiser.run()
    except NotRecognized as error:
        found = f"; found {formula(error.op)}" if error.op is not None else ""
        raise UnsupportedError(
            f"not raised to a decoder step: {error.why}{found}",
            where=location_of(error.op) if error.op is not None else None,
            advice="mpk_ir.compile(model, example_inputs) runs the graph as it is",
        ) from error


class _Raiser:
    """Rebuilds the value that the graph returns, from its end; each value once."""

    def __init__(self, graph: ModuleOp, tensors: Tensors, options: StepOptions, window: int) -> None:
        self.graph = graph
        self.tensors = tensors
        self.options = options
        self.window = window
        self.block = Block()
        self.made: dict[tuple[str, SSAValue], SSAValue] = {}
        self.params: dict[str, SSAValue] = {}
        self.weights: dict[str, Callable[[], torch.Tensor]] = {}
        self.states: dict[str, SSAValue] = {}
        self.frequencies: dict[str, SSAValue] = {}
        (self.returned,) = [op for op in graph.walk() if isinstance(op, ReturnOp)]
        self.layers = 0

    def run(self) -> Decoder:
        (logits,) = self.returned.operands
        shape = tg.shape_of(logits)
        if len(shape) != 3 or shape[:2] != (1, self.options.rows):
            raise NotRecognized(
                None, f"the result has shape {list(shape)}, expected logits [1, {self.options.rows}, ...]"
            )
        self._declare_states()
        for hidden in self._residuals(logits):
            self.row(hidden)  # each rests on the one before it: no recursion through all layers
        uncapped, softcap = soft_capped(unshaped(logits))
        linear = made_by(unshaped(uncapped), tg.LinearOp)
        if linear is None:
            head = self._emit(tg.CastOp(self.row(logits), f32), "logits")
        else:
            operands = self.row(linear.x), self.param(linear.weight), linear.bias and self.param(linear.bias)
            head = self._emit(tg.LinearOp(*operands, element=f32), "logits")
        self.block.add_op(tg.UpdateOp("logits", self._soft_capped(head, softcap if linear is not None else 0.0)))
        self._finish(self._emit(tg.ArgmaxOp(head), "sampled"))  # a cap keeps the order
        function = FuncOp("step", ((), ()), Region(self.block))
        return Decoder(ModuleOp([function]), shape[2], self.weights)

    def _residuals(self, result: SSAValue) -> Iterator[SSAValue]:
        """The sums of whole rows that ``result`` is made of, in the graph's order."""
        needed, left = set[Operation](), [result]
        while left:
            if isinstance(op := left.pop().owner, Operation) and op not in needed:
                needed.add(op)
                left.extend(op.operands)
        for op in self.graph.walk():
            if isinstance(op, tg.AddOp) and op in needed:
                shapes = {tg.shape_of(value) for value in (op.result, *op.operands)}
                if len(shapes) == 1 and shapes.pop()[:-1] == (1, self.options.rows):
                    yield op.result

    def _soft_capped(self, head: SSAValue, cap: float) -> SSAValue:
        if cap == 0:
            return head
        number = self._emit(tg.ConstantOp.of(np.array([cap], np.float32)), "cap")
        ratio = self._emit(tg.TanhOp(self._emit(tg.DivOp(head, number), "ratio")), "ratio")
        return self._emit(tg.MulOp(ratio, number), "logits")

    def _declare_states(self) -> None:
        options = self.options
        shapes = {
            "history": (options.batch, options.max_length),
            "requests": (options.batch, len(RequestColumn)),
            "rows": (options.rows, len(RowColumn)),
            "row_count": (1,),
            "page_table": (options.batch, options.pages_per_request),
        }
        for name in STATES:
            self.last_early: Operation = tg.StateOp(name, tg.tensor(shapes[name], i32))
            self.states[name] = self._emit(self.last_early, name)

    def _finish(self, sampled: SSAValue) -> None:
        names = ("history", "requests", "rows", "row_count")
        advance = tg.AdvanceOp(sampled, [self.states[name] for name in names], self.options.stop_tokens)
        self.block.add_op(advance)
        for name, value in zip(names, advance.results, strict=True):
            value.name_hint = f"next_{name}"
            self.block.add_op(tg.UpdateOp(name, value))
        self.block.add_op(ReturnOp())

    # Values of the step.

    def row(self, value: SSAValue) -> SSAValue:
        """The rows [R, C] of a value [1, R, C] or [R, C]."""
        return self._once("row", value, self._row)

    def _row(self, value: SSAValue) -> SSAValue:
        op = value.owner
        if not isinstance(op, Operation):
            raise NotRecognized(None, "an argument is used other than as token ids or positions")
        match op:
            case tg.ReshapeOp():
                return self._reshaped_row(op)
            case tg.CastOp():
                return self.row(op.x)
            case tg.GatherOp():
                return self._lookup(op)
            case tg.LinearOp():
                x, weight = self.row(op.x), self.param(op.weight)
                return self._emit(tg.LinearOp(x, weight, None if op.bias is None else self.param(op.bias)), "linear")
            case tg.MatmulOp() if isinstance(op.rhs.owner, tg.ParamOp):
                return self._emit(tg.LinearOp(self.row(op.lhs), self._transposed(op.rhs.owner)), "linear")
            case tg.RmsNormOp():
                return self._emit(tg.RmsNormOp(self.row(op.x), self._vector(op.weight), op.eps.value.data), "normed")
            case tg.LayerNormOp():
                vectors = self._vector(op.weight), self._vector(op.bias)
                return self._emit(tg.LayerNormOp(self.row(op.x), *vectors, op.eps.value.data), "normed")
            case tg.SliceOp():
                return self._sliced_row(op)
            case tg.GatedOp() | tg.UnaryOp() | tg.BinaryOp():
                return self._elementwise(op)
            case _:
                raise NotRecognized(op, f"'{op.name}' of a value {list(tg.shape_of(value))} is no op on rows")

    def _reshaped_row(self, op: tg.ReshapeOp) -> SSAValue:
        before, after = tg.shape_of(op.x), tg.shape_of(op.result)
        rows = self.options.rows
        flat = after[-2:] if after in ((1, rows, after[-1]), (rows, after[-1])) else None
        if flat is not None and before[-2:] == flat and len(before) in (2, 3):
            return self.row(op.x)
        if flat is not None and isinstance(op.x.owner, tg.TransposeOp):
            form = attention_form(op.x)
            return self._attention(form, flat[1])
        raise NotRecognized(op, f"a reshape of {list(before)} to {list(after)} mixes rows")

    def _sliced_row(self, op: tg.SliceOp) -> SSAValue:
        offsets, sizes = op.box
        if any(offsets[:-1]) or sizes[:-1] != tg.shape_of(op.x)[:-1]:
            raise NotRecognized(op, "a slice that leaves rows out")
        linear = made_by(unshaped(op.x), tg.LinearOp)
        if linear is not None and linear.bias is None and _only_in_parts(op.x):
            weight = self._rows_of_weight(linear.weight, offsets[-1], sizes[-1])
            return self._emit(tg.LinearOp(self.row(linear.x), weight), "linear")
        rows = self.options.rows
        return self._emit(tg.SliceOp(self.row(op.x), (0, offsets[-1]), (rows, sizes[-1])), "part")

    def _elementwise(self, op: Operation) -> SSAValue:
        operands = [self._row_or_vector(value, tg.shape_of(op.results[0])) for value in op.operands]
        if isinstance(op, tg.GeluOp):
            return self._emit(tg.GeluOp(operands[0], op.approximate is not None), "activated")
        if isinstance(op, tg.GeluMulOp):
            return self._emit(tg.GeluMulOp(*operands, approximate=op.approximate is not None), "inner")
        hint = "inner" if isinstance(op, tg.GatedOp) else "hidden" if isinstance(op, tg.AddOp) else "value"
        return self._emit(type(op)(*operands), hint)

    def _row_or_vector(self, value: SSAValue, shape: tuple[int, ...]) -> SSAValue:
        if tg.shape_of(value) == shape:
            return self.row(value)
        return self._vector(value)

    def _vector(self, value: SSAValue) -> SSAValue:
        """A value that does not depend on rows: a parameter, a constant, or elementwise of them."""
        return self._once("vector", value, self._make_vector)

    def _make_vector(self, value: SSAValue) -> SSAValue:
        op, shape = value.owner, tg.shape_of(value)
        if len(shape) > 1 and any(size != 1 for size in shape[:-1]):
            raise NotRecognized(_operation(op), f"a value of shape {list(shape)} beside rows")
        match op:
            case tg.ParamOp():
                return self.param(value)
            case tg.ConstantOp():
                return self._emit(tg.CastOp(self._emit(tg.ConstantOp.of(op.array), "constant"), bf16), "constant")
            case tg.CastOp():
                return self._vector(op.x)
            case tg.ReshapeOp() | tg.BroadcastOp():
                inner = self._vector(op.x)
                if tg.shape_of(inner)[-1:] == shape[-1:]:
                    return inner
                return self._emit(tg.BroadcastOp(inner, shape[-1:]), "vector")
            case tg.UnaryOp() | tg.BinaryOp():
                return self._derived(op)
            case _:
                raise NotRecognized(_operation(op), "a vector that is no parameter")

    def _derived(self, op: Operation) -> SSAValue:
        """A vector computed of parameters, as a parameter; of constants alone, as it is."""
        (value,), names = op.results, parameters_of(op.results[0])
        if not names:
            return self._emit(type(op)(*(self._vector(one) for one in op.operands)), "vector")
        name = f"{names[0]}.{op.name.removeprefix('tg.')}"
        while name in self.weights:
            name += "_"
        return self._parameter(name, tg.shape_of(value)[-1:], partial(derived, value, self.tensors))

    def heads(self, value: SSAValue) -> SSAValue:
        """The heads [R, H, D] of a value [1, H, R, D] or [1, R, H, D]."""
        return self._once("heads", value, self._heads)

    def _heads(self, value: SSAValue) -> SSAValue:
        op = value.owner
        match op:
            case tg.TransposeOp() if op.order == (0, 2, 1, 3):
                return self.heads(op.x)
            case tg.CastOp():
                return self.heads(op.x)
            case tg.ReshapeOp() if len(tg.shape_of(value)) == 4 and len(tg.shape_of(op.x)) == 4:
                return self.heads(op.x)
            case tg.ReshapeOp():
                _, rows, heads, size = tg.shape_of(value)
                if rows != self.options.rows or tg.shape_of(op.x)[-1] != heads * size:
                    raise NotRecognized(op, f"a reshape of {list(tg.shape_of(op.x))} to {list(tg.shape_of(value))}")
                return self._emit(tg.ReshapeOp(self.row(op.x), (rows, heads, size)), "heads")
            case tg.ConcatOp() if op.axis.value.data == 3:
                return self._emit(tg.ConcatOp([self.heads(part) for part in op.parts], 2), "heads")
            case tg.SliceOp() if op.box[1][:3] == tg.shape_of(op.x)[:3]:
                whole = self.heads(op.x)
                box = (0, 0, op.box[0][3]), (*tg.shape_of(whole)[:2], op.box[1][3])
                return self._emit(tg.SliceOp(whole, *box), "part")
            case tg.RmsNormOp():
                return self._emit(tg.RmsNormOp(self.heads(op.x), self._vector(op.weight), op.eps.value.data), "normed")
            case tg.AddOp():
                form = rope_form(op)
                heads, frequency = self.heads(form.x), self._frequency(form.inv_freq)
                rope = tg.RopeOp(heads, self.states["rows"], frequency, form.scaling, form.interleaved)
                return self._emit(rope, "rope")
            case _:
                raise NotRecognized(_operation(op), "queries or keys by an op that is no rope")

    def _attention(self, form: AttentionForm, columns: int) -> SSAValue:
        names = (f"k_cache.{self.layers}", f"v_cache.{self.layers}")
        self.layers += 1
        for stage in (tg.ReshapeOp, tg.RmsNormOp):  # as a paper would write it: products, then norms, then ropes
            for value in (form.q, form.k, form.v):
                self._up_to(stage, value)
        q, *news = [self.heads(value) for value in (form.q, form.k, form.v)]
        caches = [self._append(name, new) for name, new in zip(names, news, strict=True)]
        states = [self.states[name] for name in ("rows", "requests", "page_table")]
        attended = self._emit(tg.AttentionOp(q, caches, states, self._scores(form)), "attended")
        return self._emit(tg.ReshapeOp(attended, (self.options.rows, columns)), "attended")

    def _scores(self, form: AttentionForm) -> tg.Scores:
        in_sight = form.scores.window < self.options.max_length
        return form.scores if in_sight else replace(form.scores, window=self.window)

    def _up_to(self, stage: type[Operation], value: SSAValue) -> None:
        """Make the heads that ``value`` is before what follows the innermost ``stage``."""
        found, here = None, value
        while isinstance(op := here.owner, tg.TransposeOp | tg.CastOp | tg.RmsNormOp | tg.AddOp | tg.ReshapeOp):
            found = here if isinstance(op, stage) else found
            if isinstance(op, tg.ReshapeOp) and len(tg.shape_of(op.x)) != 4:
                break
            here = rope_form(op).x if isinstance(op, tg.AddOp) else op.x
        if found is not None:
            self.heads(found)

    def _append(self, name: str, new: SSAValue) -> SSAValue:
        _, heads, size = tg.shape_of(new)
        shape = (self.options.pages, heads, self.options.page_size, size)
        cache = self._emit(tg.StateOp(name, tg.tensor(shape, tg.element_of(new))), name.partition(".")[0])
        appended = self._emit(
            tg.KvAppendOp(cache, new, self.states["rows"], self.states["page_table"]), name.partition(".")[0]
        )
        self.block.add_op(tg.UpdateOp(name, appended))
        return appended

    def _lookup(self, op: tg.GatherOp) -> SSAValue:
        """Rows of a table by token, or by position."""
        table, ids = self.param(op.x), unshaped(op.ids)
        if not isinstance(ids.owner, Operation):
            return self._emit(tg.EmbeddingOp(table, self.states["rows"]), "hidden")
        column = tg.SliceOp(self.states["rows"], (0, RowColumn.POSITION), (self.options.rows, 1))
        position = tg.ReshapeOp(self._emit(column, "position"), (self.options.rows,))
        return self._emit(tg.EmbeddingOp(table, self._emit(position, "position")), "position")

    def _frequency(self, value: SSAValue) -> SSAValue:
        """The frequencies of a rotary embedding as a constant: a parameter of the graph, known now."""
        param = made_by(unshaped(value), tg.ParamOp)
        if param is None:
            raise NotRecognized(_operation(value.owner), "computed frequencies")
        name = param.symbol.data
        if name not in self.frequencies:
            array = self.tensors(name).float().reshape(-1).cpu().numpy().astype(np.float32)
            key = next((known for known in self.frequencies if self._same(known, array)), name)
            made = self.frequencies.get(key) or self._early(tg.ConstantOp.of(array), "inv_freq")
            self.frequencies[name] = made
        return self.frequencies[name]

    def _same(self, name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bool:
        return np.array_equal(self.tensors(name).float().reshape(-1).cpu().numpy(), array)

    def param(self, value: SSAValue) -> SSAValue:
        """The parameter ``value``."""
        param = made_by(value, tg.ParamOp)
        if param is None:
            raise NotRecognized(_operation(value.owner), "a weight that is computed")
        shape = tg.shape_of(value)
        return self._parameter(param.symbol.data, shape, lambda name=param.symbol.data: self._tensor(name, shape))

    def _transposed(self, param: tg.ParamOp) -> SSAValue:
        """A weight [K, N] as [N, K], which it is turned to when it is bound."""
        name, (depth, columns) = param.symbol.data, tg.shape_of(param.result)
        return self._parameter(f"{name}.transposed", (columns, depth), lambda: self._tensor(name, (depth, columns)).t())

    def _rows_of_weight(self, weight: SSAValue, first: int, count: int) -> SSAValue:
        """Some rows [count, K] of a weight [N, K], as a parameter: what models merge is taken apart, and merged by
        `tg-merge-linears` as any other's."""
        param = made_by(weight, tg.ParamOp)
        if param is None:
            raise NotRecognized(_operation(weight.owner), "a weight that is computed")
        name, shape = param.symbol.data, tg.shape_of(weight)
        rows = slice(first, first + count)
        return self._parameter(f"{name}.{first}", (count, *shape[1:]), lambda: self._tensor(name, shape)[rows])

    def _tensor(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return self.tensors(name).detach().reshape(shape)

    def _parameter(self, name: str, shape: tuple[int, ...], weight: Callable[[], torch.Tensor]) -> SSAValue:
        if name not in self.params:
            self.weights[name] = weight
            self.params[name] = self._emit(tg.ParamOp(name, tg.tensor(shape, bf16)), "w")
        return self.params[name]

    def _once(self, kind: str, value: SSAValue, make: Callable[[SSAValue], SSAValue]) -> SSAValue:
        if (kind, value) not in self.made:
            self.made[kind, value] = make(value)
        return self.made[kind, value]

    def _early(self, op: Operation, hint: str) -> SSAValue:
        """``op`` behind the states: it depends on no row."""
        self.block.insert_op_after(op, self.last_early)
        self.last_early = op
        op.results[0].name_hint = hint
        return op.results[0]

    def _emit(self, op: Operation, hint: str) -> SSAValue:
        self.block.add_op(op)
        op.results[0].name_hint = hint
        return op.results[0]


def _only_in_parts(value: SSAValue) -> bool:
    """Whether all that uses ``value`` takes some of its columns."""
    return all(isinstance(use.operation, tg.SliceOp) for use in value.uses)


def _operation(owner: Operation | Block) -> Operation | None:
    return owner if isinstance(owner, Operation) else None


def canonical_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Each parameter's name -> the first name of the same tensor: a tied head is the embedding."""
    first: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    return {
        name: first.setdefault((tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride())), name)
        for name, tensor in tensors.items()
    }
