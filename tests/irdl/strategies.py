"""Any op of any of our dialects, drawn from its IRDL definition alone: constraints become strategies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st
from xdsl.dialects import test
from xdsl.dialects.builtin import (
    AffineMapAttr,
    ArrayAttr,
    ArrayOfConstraint,
    BytesAttr,
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    DictionaryAttr,
    EmptyArrayAttrConstraint,
    FixedBitwidthType,
    FloatAttr,
    IntAttr,
    IntegerAttr,
    ModuleOp,
    NoneAttr,
    StringAttr,
    SymbolNameConstraint,
    SymbolRefAttr,
    TensorType,
    UnitAttr,
    bf16,
    f32,
    f64,
    i1,
    i32,
    i64,
)
from xdsl.ir import Attribute, Block, Data, Operation, ParametrizedAttribute, Region
from xdsl.ir.affine import AffineConstantExpr, AffineDimExpr, AffineExpr, AffineMap
from xdsl.irdl import (
    AnyAttr,
    AnyOf,
    AttrConstraint,
    AttrSetConstraint,
    AttrSizedOperandSegments,
    BaseAttr,
    EqAttrConstraint,
    IRDLOperation,
    MessageConstraint,
    OptOperandDef,
    OptPropertyDef,
    ParamAttrConstraint,
    RangeConstraint,
    RangeLengthConstraint,
    RangeOf,
    VarConstraint,
    VarOperandDef,
)
from xdsl.traits import HasParent
from xdsl.utils.exceptions import VerifyException

from mpk_ir.dialects.cuda import Cuda
from mpk_ir.dialects.sm import Sm
from mpk_ir.dialects.tg import Tg

OPS: tuple[type[IRDLOperation], ...] = tuple(
    op for dialect in (Tg, Sm, Cuda) for op in dialect.operations if issubclass(op, IRDLOperation)
)
SEGMENTS = "operandSegmentSizes"
LENGTHS = {"wait_elements": "waits", "signal_elements": "signals"}
"""Properties that have an entry for each operand of a group: an empty one counts as absent (docs/xdsl-findings.md)."""
NAMES = st.text(alphabet="abz_.09$->+ \"\\'%@#", min_size=1, max_size=6)
"""xDSL reads a string with other than ASCII as bytes (docs/xdsl-findings.md)."""
ELEMENTS = (i32, i64, i1, f32, f64, bf16)
SIZES = st.integers(1, 5)

Draw = Callable[[st.SearchStrategy[Any]], Any]
Environment = dict[str, Attribute]


def _integer(draw: Draw, parameters: list[Any]) -> Attribute:
    kind = parameters[1] or draw(st.sampled_from([i32, i64, i1]))
    width = kind.width.data
    low, high = (0, 1) if width == 1 else (-(2 ** (width - 1)), 2 ** (width - 1) - 1)
    return IntegerAttr(draw(st.one_of(st.integers(0, min(high, 8)), st.integers(low, high))), kind)


def _float(draw: Draw, parameters: list[Any]) -> Attribute:
    kind = parameters[1] or draw(st.sampled_from([f32, f64]))
    width = 64 if kind == f64 else 32
    return FloatAttr(draw(st.floats(width=width, allow_nan=False)), kind)


def _tensor(draw: Draw, parameters: list[Any]) -> Attribute:
    shape = draw(st.lists(SIZES, max_size=3))
    return TensorType(parameters[1] or draw(st.sampled_from(ELEMENTS)), shape)


def _dense_array(draw: Draw, parameters: list[Any]) -> Attribute:
    kind = parameters[0] or i64
    return DenseArrayBase.from_list(kind, draw(st.lists(st.integers(-100, 100), max_size=4)))


def _dense(draw: Draw, parameters: list[Any]) -> Attribute:
    kind: Any = parameters[0] or draw(st.sampled_from([i32, f32, bf16]))
    if not isinstance(kind, TensorType):
        kind = TensorType(kind, draw(st.lists(SIZES, min_size=1, max_size=2)))
    count = int(np.prod(kind.get_shape(), dtype=np.int64))
    assert isinstance(kind.element_type, FixedBitwidthType)
    values = draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    data = np.array(values, f"<u{kind.element_type.size}")
    return DenseIntOrFPElementsAttr(kind, BytesAttr(data.tobytes()))


def _symbol(draw: Draw, parameters: list[Any]) -> Attribute:
    del parameters
    return SymbolRefAttr(draw(NAMES))


def _string(draw: Draw, parameters: list[Any]) -> Attribute:
    del parameters
    return StringAttr(draw(NAMES))


def _dictionary(draw: Draw, parameters: list[Any]) -> Attribute:
    del parameters
    values = st.one_of(st.integers(0, 9).map(lambda n: IntegerAttr(n, i64)), NAMES.map(StringAttr))
    return DictionaryAttr(draw(st.dictionaries(st.sampled_from(["a", "rows", "eps"]), values, max_size=3)))


def _affine_map(draw: Draw, parameters: list[Any]) -> Attribute:
    del parameters
    dims = draw(st.integers(1, 3))

    def expression() -> AffineExpr:
        value: AffineExpr = AffineConstantExpr(draw(st.integers(0, 9)))
        for dim in range(dims):
            if draw(st.booleans()):
                value = value + AffineDimExpr(dim) * draw(st.integers(1, 9)) // draw(st.integers(1, 4))
        return value

    return AffineMapAttr(AffineMap(dims, 0, tuple(expression() for _ in range(draw(st.integers(1, 3))))))


MAKERS: dict[type[Attribute], Callable[[Draw, list[Any]], Attribute]] = {
    IntegerAttr: _integer,
    FloatAttr: _float,
    TensorType: _tensor,
    DenseArrayBase: _dense_array,
    DenseIntOrFPElementsAttr: _dense,
    SymbolRefAttr: _symbol,
    StringAttr: _string,
    DictionaryAttr: _dictionary,
    AffineMapAttr: _affine_map,
    UnitAttr: lambda draw, parameters: UnitAttr(),
    NoneAttr: lambda draw, parameters: NoneAttr(),
    IntAttr: lambda draw, parameters: IntAttr(draw(st.integers(0, 9))),
}
"""Builtin attributes, made from those parameters that a constraint fixes."""


def draw_attribute(draw: Draw, constraint: AttrConstraint, known: Environment) -> Attribute:
    """An attribute that ``constraint`` accepts; ``known`` holds the variables met so far."""
    match constraint:
        case EqAttrConstraint():
            return constraint.attr
        case AttrSetConstraint():
            return draw(st.sampled_from(sorted(constraint.values, key=str)))
        case AnyOf():
            return draw_attribute(draw, draw(st.sampled_from(constraint.attr_constrs)), known)
        case MessageConstraint():
            return draw_attribute(draw, constraint.constr, known)
        case VarConstraint():
            if constraint.name not in known:
                known[constraint.name] = draw_attribute(draw, constraint.constraint, known)
            return known[constraint.name]
        case ArrayOfConstraint():
            return ArrayAttr(draw_range(draw, constraint.elem_range_constraint, draw(st.integers(0, 3)), known))
        case SymbolNameConstraint():
            return StringAttr(draw(NAMES))
        case ParamAttrConstraint():
            return _parametrized(draw, constraint, known)
        case BaseAttr():
            return draw_instance(draw, constraint.attr)
        case AnyAttr():
            return draw(st.sampled_from([*ELEMENTS, StringAttr("any")]))
        case _:
            raise NotImplementedError(f"no strategy for {type(constraint).__name__}")


def _parametrized(draw: Draw, constraint: ParamAttrConstraint[Any], known: Environment) -> Attribute:
    """Builtin attributes take the parameters that matter; whatever the constraint says more is checked."""
    skipped = (AnyAttr, ArrayOfConstraint, EmptyArrayAttrConstraint)
    fixed = [
        None
        if isinstance(part, skipped) or (isinstance(part, MessageConstraint) and isinstance(part.constr, skipped))
        else draw_attribute(draw, part, known)
        for part in constraint.param_constrs
    ]
    return MAKERS[constraint.base_attr](draw, fixed)


def draw_instance(draw: Draw, kind: type[Attribute]) -> Attribute:
    """An attribute of class ``kind``: builtin ones by hand, ours by their own definition."""
    if kind in MAKERS:
        return MAKERS[kind](draw, [None, None])
    if issubclass(kind, Data):
        words = getattr(kind, "words", None) or kind.enum_type  # type: ignore[attr-defined]
        return kind(draw(st.sampled_from(list(words))))  # type: ignore[call-arg]
    assert issubclass(kind, ParametrizedAttribute)
    definition = kind.get_irdl_definition()
    for _ in range(20):
        parameters = [draw_attribute(draw, part.constr, {}) for _, part in definition.parameters]
        try:
            return kind.new(parameters)
        except VerifyException:  # what holds between parameters stands in the attribute's verifier
            continue
    return reject()


def draw_range(draw: Draw, constraint: RangeConstraint, length: int, known: Environment) -> list[Attribute]:
    """``length`` attributes that ``constraint`` accepts."""
    if isinstance(constraint, RangeLengthConstraint):
        return draw_range(draw, constraint.constraint, length, known)
    assert isinstance(constraint, RangeOf)
    return [draw_attribute(draw, constraint.constr, known) for _ in range(length)]


@st.composite
def operations(draw: Draw, kind: type[IRDLOperation]) -> ModuleOp:
    """A module that holds a `test.op` with the operands and behind it one op of ``kind``."""
    definition, known = kind.get_irdl_definition(), Environment()
    types: list[list[Attribute]] = []
    for _, operand in definition.operands:
        bounds = (0, 1) if isinstance(operand, OptOperandDef) else (0, 3) if _is_variadic(operand) else (1, 1)
        types.append(draw_range(draw, operand.constr, draw(st.integers(*bounds)), known))
    properties: dict[str, Attribute] = {}
    for name, one in definition.properties.items():
        if name in LENGTHS:
            place = [operand for operand, _ in definition.operands].index(LENGTHS[name])
            assert isinstance(one.constr, ArrayOfConstraint)
            properties[name] = ArrayAttr(draw_range(draw, one.constr.elem_range_constraint, len(types[place]), known))
        elif name != SEGMENTS and not (isinstance(one, OptPropertyDef) and draw(st.booleans())):
            properties[name] = draw_attribute(draw, one.constr, known)
    if any(isinstance(option, AttrSizedOperandSegments) for option in definition.options):
        properties[SEGMENTS] = DenseArrayBase.from_list(i32, [len(group) for group in types])
    results = [one for _, result in definition.results for one in draw_range(draw, result.constr, 1, known)]
    values = test.TestOp(result_types=[one for group in types for one in group])
    regions = [Region(Block()) for _ in definition.regions]
    op = kind.create(operands=values.results, result_types=results, properties=properties, regions=regions)
    return ModuleOp(_inside_parent(draw, kind, [values, op]))


def _is_variadic(operand: object) -> bool:
    return isinstance(operand, VarOperandDef)


def _inside_parent(draw: Draw, kind: type[IRDLOperation], ops: list[Operation]) -> list[Operation]:
    """``ops``, in an op of the kind that ``kind`` wants for its parent."""
    wanted = [trait for trait in kind.traits.traits if isinstance(trait, HasParent)]
    if not wanted:
        return ops
    (parent,) = wanted[0].op_types
    assert issubclass(parent, IRDLOperation)
    outer = innermost(draw(operations(parent)))
    outer.detach()
    outer.regions[0].block.add_ops(ops)
    return [outer]


def innermost(module: ModuleOp) -> Operation:
    """The op that was drawn: the last one, at any depth."""
    *_, op = module.walk()
    return op
