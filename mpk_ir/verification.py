"""What must hold of any module, beyond what xDSL checks: definitions dominate uses, references name a symbol.

Also a structural equality that sees everything but locations and value names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, StringAttr, SymbolRefAttr
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.irdl.dominance import DominanceInfo
from xdsl.traits import NoTerminator, SymbolTable
from xdsl.utils.exceptions import VerifyException

from .core.errors import MpkError
from .dialects.locations import location_of

_Tables = dict[Operation, dict[str, Operation]]
"""Symbols by name, for each symbol table looked into so far."""


class IRError(MpkError):
    """An op breaks a rule that every module must keep; ``op`` is the one, ``where`` its location."""

    def __init__(self, message: str, op: Operation, *, advice: str | None = None) -> None:
        super().__init__(message, where=location_of(op), advice=advice)
        self.op = op


def verify(module: Operation) -> None:
    """Check ops and structure as xDSL does, then dominance and symbols. Raises IRError at the first fault."""
    verify_ops(module)
    verify_dominance(module)
    verify_symbols(module)


def verify_ops(module: Operation) -> None:
    """Run the verifier of every op and of the blocks that hold it, innermost first.

    The same checks as `module.verify()`; but its errors name no op and carry a print of the whole module. Raises
    IRError.
    """
    for op in module.walk(region_first=True):
        for region in op.regions:
            _verify_region(region, op)
        try:
            op.verify(verify_nested_ops=False)
        except (VerifyException, ValueError) as error:
            raise IRError(f"'{op.name}': {error}", op) from None


def _verify_region(region: Region, owner: Operation) -> None:
    for block in region.blocks:
        if block.parent is not region or any(op.parent is not block for op in block.ops):
            raise IRError(f"'{owner.name}': an op or block in it belongs elsewhere", owner)
        lacks_terminator = block.is_empty and len(region.blocks) == 1 and not owner.has_trait(NoTerminator)
        if lacks_terminator:
            raise IRError(f"'{owner.name}': found an empty block, expected at least a terminator in it", owner)


def verify_dominance(module: Operation) -> None:
    """Check that every value is defined before it is used, and is visible there. Raises IRError."""
    order = _Order(module)
    for user in order.position:
        for index, operand in enumerate(user.operands):
            order.verify_operand(user, index, operand)


class _Order:
    """Which definitions of a module come before which of its ops."""

    def __init__(self, module: Operation) -> None:
        blocks = [block for op in module.walk() for region in op.regions for block in region.blocks]
        self.position = {op: index for block in blocks for index, op in enumerate(block.ops)}
        self.dominance: dict[Region, DominanceInfo] = {}
        self.reachable: dict[Region, set[Block]] = {}

    def verify_operand(self, user: Operation, index: int, operand: SSAValue) -> None:
        """Climb from ``user`` to the region that defines ``operand``; compare there."""
        owner = operand.owner
        home = owner.parent_region()
        here: Operation | None = user
        while here is not None and here.parent_region() is not home:
            here = here.parent_op()
        name = f"operand #{index}{f' (%{operand.name_hint})' if operand.name_hint else ''} of '{user.name}'"
        if home is None or here is None or here.parent is None:
            raise IRError(f"{name} is not visible here: it is defined inside another region", user)
        if self._dominates(home, owner, here, here.parent):
            return
        by = f"; '{owner.name}' defines it" if isinstance(owner, Operation) else ""
        place = location_of(owner) if isinstance(owner, Operation) else None
        raise IRError(f"{name} is used before it is defined{by}{f' at {place}' if place else ''}", user)

    def _dominates(self, region: Region, owner: Operation | Block, user: Operation, block: Block) -> bool:
        """Whether what ``owner`` defines is known at ``user`` in ``block``; both lie directly in ``region``."""
        defining = owner.parent if isinstance(owner, Operation) else owner
        if defining is block:
            return not isinstance(owner, Operation) or self.position[owner] < self.position[user]
        if region not in self.dominance:
            self.dominance[region], self.reachable[region] = DominanceInfo(region), _reachable(region)
        if block not in self.reachable[region]:
            return True
        return defining is not None and self.dominance[region].strictly_dominates(defining, block)


def verify_symbols(module: Operation) -> None:
    """Check that every symbol reference among the properties of an op names a symbol of a table around it.

    Discardable attributes are not looked at: what they mean is not ours to say. Raises IRError.
    """
    tables: _Tables = {}
    for op in module.walk():
        for attribute in op.properties.values():
            for reference in _references(attribute):
                if _resolve(op, reference, tables) is None:
                    raise IRError(f"'{op.name}': no symbol is called {reference}", op)


def _resolve(
    op: Operation, reference: SymbolRefAttr, tables: dict[Operation, dict[str, Operation]]
) -> Operation | None:
    path = [reference.root_reference.data, *(part.data for part in reference.nested_references)]
    around: Operation | None = op
    while around is not None:
        if around.has_trait(SymbolTable, value_if_unregistered=False):
            found: Operation | None = around
            for name in path:
                found = found and _symbols(found, tables).get(name)
            if found is not None:
                return found
        around = around.parent_op()
    return None


def _symbols(table: Operation, tables: dict[Operation, dict[str, Operation]]) -> dict[str, Operation]:
    if table not in tables:
        named = (
            (op, op.get_attr_or_prop("sym_name")) for region in table.regions for b in region.blocks for op in b.ops
        )
        tables[table] = {name.data: op for op, name in named if isinstance(name, StringAttr)}
    return tables[table]


def _references(attribute: Attribute) -> Iterator[SymbolRefAttr]:
    match attribute:
        case SymbolRefAttr():
            yield attribute
        case ArrayAttr():
            for element in attribute:
                yield from _references(element)
        case DictionaryAttr():
            for element in attribute.data.values():
                yield from _references(element)
        case _:
            pass


def structurally_equal(a: Operation, b: Operation) -> bool:
    """Whether ``a`` and ``b`` are the same IR: ops, operands, attributes, regions, and all types.

    Locations and value names don't count. xDSL's `is_structurally_equivalent` does not compare result types.
    """
    return a.is_structurally_equivalent(b) and all(
        left.result_types == right.result_types and _argument_types(left) == _argument_types(right)
        for left, right in zip(a.walk(), b.walk(), strict=True)
    )


def _argument_types(op: Operation) -> list[Sequence[Attribute]]:
    return [block.arg_types for region in op.regions for block in region.blocks]


def _reachable(region: Region) -> set[Block]:
    entry = region.first_block
    seen: set[Block] = set()
    frontier = [] if entry is None else [entry]
    while frontier:
        block = frontier.pop()
        if block not in seen:
            seen.add(block)
            frontier.extend(block.last_op.successors if block.last_op is not None else ())
    return seen
