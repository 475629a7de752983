"""Recognizing attention over a static cache, and rotary embedding, in a decomposed graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from xdsl.ir import Operation, SSAValue

from ...dialects import tg
from ...passes.tg.matching import either_order, made_by, number_of, scaled, uncast, unshaped

T = TypeVar("T", bound=Operation)


class NotRecognized(Exception):
    """``op`` is not what a decoder's graph has in its place; ``why`` says what was expected."""

    def __init__(self, op: Operation | None, why: str) -> None:
        self.op = op
        self.why = why
        super().__init__(why)


@dataclass(frozen=True)
class AttentionForm:
    """Queries [1, Hq, R, D], new keys and values [1, Hkv, R, D] of one attention, and what becomes of its scores.

    ``scores.window`` may be longer than the cache: the mask tells it.
    """

    q: SSAValue
    k: SSAValue
    v: SSAValue
    scores: tg.Scores


@dataclass(frozen=True)
class RopeForm:
    """``x`` turned by positions times ``inv_freq``, cosine and sine times ``scaling``; all as in `tg.rope`."""

    x: SSAValue
    inv_freq: SSAValue
    scaling: float
    interleaved: bool


def attention_form(value: SSAValue) -> AttentionForm:
    """The attention whose result [1, R, Hq, D] ``value`` is. Raises NotRecognized."""
    transpose = made_by(uncast(value), tg.TransposeOp)
    if transpose is None or transpose.order != (0, 2, 1, 3):
        raise NotRecognized(_op(value), "expected the heads of an attention, transposed back to rows")
    product = _expect(unshaped(transpose.x), tg.MatmulOp, "expected the product of probabilities and values")
    softmax = _softmax(product.lhs)
    scores, window = _masked(softmax)
    value_cache, factor = _cache(product.rhs)
    if factor != 1.0:
        raise NotRecognized(product, "values are scaled")
    scores, softcap = soft_capped(scores)
    scores, outer = scaled(scores)
    inner = _expect(unshaped(scores), tg.MatmulOp, "expected the product of queries and keys")
    queries, q_factor = _scaled_through(inner.lhs)
    key_cache, k_factor = _cache(inner.rhs)
    scale = outer * q_factor * k_factor
    usual = tg.shape_of(key_cache.source)[-1] ** -0.5
    scale = usual if math.isclose(scale, usual, rel_tol=1e-5) else scale  # a product of two rounded roots of it
    return AttentionForm(queries, key_cache.source, value_cache.source, tg.Scores(scale, softcap, window))


def _softmax(value: SSAValue) -> tg.SoftmaxOp:
    """The softmax, perhaps guarded against rows of which all is masked: in a causal mask there are none."""
    found = unshaped(value)
    if (guard := made_by(found, tg.SelectOp)) is not None:
        found = unshaped(guard.rhs if made_by(unshaped(guard.rhs), tg.SoftmaxOp) else guard.lhs)
    return _expect(found, tg.SoftmaxOp, "expected a softmax of scores")


def soft_capped(value: SSAValue) -> tuple[SSAValue, float]:
    """The x and c of a ``value`` c * tanh(x / c); c is 0 where it is none."""
    tanh = made_by(unshaped(scaled(value)[0]), tg.TanhOp)
    if tanh is None:
        return value, 0.0
    cap, quotient = scaled(value)[1], uncast(tanh.x)
    match quotient.owner:
        case tg.DivOp() as op if number_of(op.rhs) == cap:
            return op.lhs, cap
        case tg.MulOp() as op if math.isclose((number_of(op.rhs) or 0.0) * cap, 1.0, rel_tol=1e-6):
            return op.lhs, cap
        case _:
            return value, 0.0


def _masked(softmax: tg.SoftmaxOp) -> tuple[SSAValue, int]:
    """The scores without their causal mask, and the window of that."""
    masked = uncast(softmax.x)
    while isinstance(masked.owner, tg.ReshapeOp):
        masked = uncast(masked.owner.x)
    total = _expect(masked, tg.AddOp, "expected scores plus a mask")
    for scores, mask in either_order(total):
        select = made_by(unshaped(mask), tg.SelectOp)
        if select is not None:
            return scores, _window(select, tg.shape_of(softmax.x)[-1])
    raise NotRecognized(total, "expected scores plus a mask")


def _window(select: tg.SelectOp, length: int) -> int:
    """How many positions up to the own are seen, 0 for all. Raises NotRecognized for any other mask."""
    condition = unshaped(select.condition)
    parts = [condition]
    while (both := made_by(parts[-1], tg.MulOp)) is not None:
        parts[-1:] = [unshaped(both.lhs), unshaped(both.rhs)]
    causal = [part for part in parts if _is_causal(part, length)]
    windows = [_window_of(part, length) for part in parts if part not in causal]
    if not causal or 0 in windows:
        raise NotRecognized(select, "the mask hides more than later positions and those before a window (padding)")
    return min(windows, default=0)


def _is_causal(part: SSAValue, length: int) -> bool:
    compare = made_by(part, tg.CompareOp)
    if compare is None or compare.predicate.data is not tg.Predicate.LE:
        return False
    return _is_every_position(compare.lhs, length) and is_own_position(compare.rhs)


def _window_of(part: SSAValue, length: int) -> int:
    """The w of kv > own - w; 0 if it is none."""
    compare = made_by(part, tg.CompareOp)
    if compare is None or compare.predicate.data is not tg.Predicate.GT or not _is_every_position(compare.lhs, length):
        return 0
    shifted = unshaped(compare.rhs)
    if isinstance(shifted.owner, tg.SubOp | tg.AddOp):
        number = number_of(shifted.owner.rhs) if is_own_position(shifted.owner.lhs) else None
        sign = -1 if isinstance(shifted.owner, tg.AddOp) else 1
        return 0 if number is None else max(0, int(sign * number))
    return 0


def _is_every_position(value: SSAValue, length: int) -> bool:
    constant = made_by(unshaped(value), tg.ConstantOp)
    return constant is not None and np.array_equal(constant.array.ravel(), np.arange(length))


def is_own_position(value: SSAValue) -> bool:
    """Whether ``value`` is 0 .. R - 1 plus an argument: the position of each row."""
    total = made_by(unshaped(value), tg.AddOp)
    for counted, begin in either_order(total) if total is not None else ():
        constant = made_by(unshaped(counted), tg.ConstantOp)
        if constant is None or not np.array_equal(constant.array.ravel(), np.arange(constant.array.size)):
            continue
        start = unshaped(begin)
        while isinstance(start.owner, tg.SliceOp | tg.ReshapeOp | tg.BroadcastOp):
            start = start.owner.x
        if not isinstance(start.owner, Operation):
            return True
    return False


def _scaled_through(value: SSAValue) -> tuple[SSAValue, float]:
    """As `scaled`, also through reshapes."""
    factor = 1.0
    while True:
        value, more = scaled(value)
        factor *= more
        if not isinstance(value.owner, tg.ReshapeOp) or len(tg.shape_of(value.owner.x)) < 3:
            return value, factor
        if made_by(value.owner.x, tg.LinearOp) is not None or len(tg.shape_of(value)) == 4:
            return value, factor
        value = value.owner.x


def _cache(value: SSAValue) -> tuple[tg.IndexCopyOp, float]:
    """The appended cache that keys or values come from, and what they are scaled by."""
    factor = 1.0
    while True:
        value, more = scaled(value)
        factor *= more
        match value.owner:
            case tg.ReshapeOp() | tg.BroadcastOp() | tg.TransposeOp():
                value = value.owner.x
            case tg.IndexCopyOp() as append:
                if append.axis.value.data != 2 or not is_own_position(append.ids):
                    raise NotRecognized(append, "expected new keys and values at each row's position")
                return append, factor
            case _:
                raise NotRecognized(_op(value), "expected keys and values of a static cache")


def rope_form(op: tg.AddOp) -> RopeForm:
    """x * cos + turned(x) * sin, where halves are turned against each other, or neighbours. Raises NotRecognized."""
    for plain, turned in either_order(op):
        first, second = made_by(plain, tg.MulOp), made_by(turned, tg.MulOp)
        if first is None or second is None:
            continue
        for x, cosine in either_order(first):
            for rotated, sine in either_order(second):
                if _is_rotated_half(rotated, x):
                    return _rope(op, x, cosine, sine, interleaved=False)
                if _are_rotated_pairs(rotated, x):
                    return _rope(op, x, cosine, sine, interleaved=True)
    raise NotRecognized(op, "expected a rotary embedding of two halves or of pairs (of the whole head)")


def _is_rotated_half(value: SSAValue, x: SSAValue) -> bool:
    """Whether ``value`` is the second half of x negated, then the first; casts anywhere."""
    joined = made_by(uncast(value), tg.ConcatOp)
    if joined is None or len(joined.parts) != 2:
        return False
    negated = made_by(uncast(joined.parts[0]), tg.NegOp)
    if negated is None:
        return False
    whole, first, columns = _columns(x)
    half = columns // 2
    return [_columns(negated.x), _columns(joined.parts[1])] == [(whole, first + half, half), (whole, first, half)]


def _columns(value: SSAValue) -> tuple[SSAValue, int, int]:
    """``value`` as some columns of a value that is no slice, with the first and how many they are."""
    value, columns = uncast(value), tg.shape_of(value)[-1]
    match value.owner:
        case tg.SliceOp() as op if not any(op.box[0][:-1]) and op.box[1][:-1] == tg.shape_of(op.x)[:-1]:
            return uncast(op.x), op.box[0][-1], columns
        case _:
            return value, 0, columns


def _are_rotated_pairs(value: SSAValue, x: SSAValue) -> bool:
    """Whether ``value`` is of each two neighbours of x the second negated, then the first; casts anywhere."""
    joined = made_by(unshaped(value), tg.ConcatOp)
    if joined is None or len(joined.parts) != 2 or joined.axis.value.data != len(tg.shape_of(joined.result)) - 1:
        return False
    negated = made_by(unshaped(joined.parts[0]), tg.NegOp)
    return negated is not None and _neighbour(negated.x, x) == 1 and _neighbour(joined.parts[1], x) == 0


def _neighbour(value: SSAValue, x: SSAValue) -> int | None:
    """Which of each two neighbours of ``x`` make up ``value``; None if it is something else."""
    column = made_by(unshaped(value), tg.SliceOp)
    if column is None or unshaped(column.x) is not unshaped(x):
        return None
    (*zeros, number), shape = column.box[0], tg.shape_of(column.x)
    pairs = (*tg.shape_of(x)[:-1], tg.shape_of(x)[-1] // 2, 2)
    return number if shape == pairs and column.box[1] == (*pairs[:-1], 1) and not any(zeros) else None


def _rope(op: tg.AddOp, x: SSAValue, cosine: SSAValue, sine: SSAValue, *, interleaved: bool) -> RopeForm:
    cos_turn, sin_turn = _Turn.of(cosine), _Turn.of(sine)
    cos, sin = made_by(cos_turn.value, tg.CosOp), made_by(sin_turn.value, tg.SinOp)
    if cos is None or sin is None or cos_turn.factor != sin_turn.factor or cos.x is not sin.x:
        raise NotRecognized(op, "expected cosine and sine of the same angles")
    angles = _angles_of_pairs(op, cos.x, cos_turn, sin_turn) if interleaved else _angles_of_halves(op, cos.x, cos_turn)
    product = made_by(unshaped(angles), tg.MulOp)
    if product is None:
        product = made_by(unshaped(_untransposed(angles)), tg.MulOp)
    for position, frequency in either_order(product) if product is not None else ():
        whole = unshaped(position)
        if isinstance(whole.owner, tg.CastOp) and is_own_position(whole.owner.x):
            return RopeForm(x, frequency, cos_turn.factor, interleaved)
    raise NotRecognized(op, "expected angles of position times frequency")


def _angles_of_halves(op: tg.AddOp, angles: SSAValue, turn: _Turn) -> SSAValue:
    """The angles of one half."""
    both = made_by(unshaped(angles), tg.ConcatOp)
    if both is None or len(both.parts) != 2 or both.parts[0] is not both.parts[1] or turn.cut or turn.doubled:
        raise NotRecognized(op, "expected the angles twice, one for each half")
    return both.parts[0]


def _angles_of_pairs(op: tg.AddOp, angles: SSAValue, cosine: _Turn, sine: _Turn) -> SSAValue:
    """The angles of one of each two neighbours: their cosines are doubled, of the first half if there are two, or they
    are."""
    inner = _Turn.of(angles)
    both = made_by(inner.value, tg.ConcatOp)
    twice = both is not None and len(both.parts) == 2 and both.parts[0] is both.parts[1]
    doubled = [cosine.doubled or inner.doubled, sine.doubled or inner.doubled]
    if not all(doubled) or inner.factor != 1.0 or [cosine.cut, sine.cut] != [twice, twice] or inner.cut:
        raise NotRecognized(op, "expected each angle twice, one for each of two neighbours")
    return both.parts[0] if both is not None else inner.value


@dataclass(frozen=True)
class _Turn:
    """``value`` times ``factor``, reshaped; ``doubled``: each element of the last dimension comes twice in a row;
    ``cut``: of the last dimension the first half."""

    value: SSAValue
    factor: float = 1.0
    doubled: bool = False
    cut: bool = False

    @staticmethod
    def of(value: SSAValue) -> _Turn:
        """What ``value`` is."""
        factor, doubled, cut = 1.0, False, False
        while True:
            value, more = scaled(uncast(value))
            factor *= more
            match value.owner:
                case tg.ReshapeOp() as op:
                    value = op.x
                case tg.BroadcastOp() as op:
                    doubled |= tg.shape_of(op.x)[-1] == 1 and tg.shape_of(op.result)[-1] == 2
                    value = op.x
                case tg.SliceOp() as op if not any(op.box[0]) and not cut and _is_first_half(op):
                    cut, value = True, op.x
                case _:
                    return _Turn(value, factor, doubled, cut)


def _is_first_half(op: tg.SliceOp) -> bool:
    *lead, last = tg.shape_of(op.x)
    return op.box[1] == (*lead, last // 2)


def _untransposed(value: SSAValue) -> SSAValue:
    value = unshaped(value)
    return value.owner.x if isinstance(value.owner, tg.TransposeOp) else value


def _expect(value: SSAValue, kind: type[T], why: str) -> T:
    if not isinstance(value.owner, kind):
        raise NotRecognized(_op(value), why)
    return value.owner


def _op(value: SSAValue) -> Operation | None:
    return value.owner if isinstance(value.owner, Operation) else None
