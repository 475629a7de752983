"""The base of every `tg` op that computes: shapes checked from its signature, no effects."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import IRDLOperation, ParsePropInAttrDict, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from .signature import Signature
from .tensors import Tensor, element_of


class TgOp(IRDLOperation, ABC):
    """A value computed from values. Subclasses give ``SIGNATURE``; ``verify_more`` holds what it cannot say.

    All operands and results have one element type, except those named in ``FREE_TYPES``.
    """

    SIGNATURE: ClassVar[Signature]
    FREE_TYPES: ClassVar[tuple[str, ...]] = ()
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)

    def verify_(self) -> None:
        operands: dict[str, SSAValue | None] = {name: getattr(self, name) for name in self.SIGNATURE.operands}
        results: dict[str, SSAValue] = {name: getattr(self, name) for name in self.SIGNATURE.results}
        self.SIGNATURE.check(self.name, operands, results)
        self._verify_element_types()
        self.verify_more()

    def _verify_element_types(self) -> None:
        definition, first = self.get_irdl_definition(), None
        for kind, fields in (("operand", definition.operands), ("result", definition.results)):
            for name, _ in fields:
                if name in self.FREE_TYPES:
                    continue
                for value in self._values(name):
                    first = first or (name, element_of(value))
                    expected = f"{first[1]} as in '{first[0]}'"
                    found = element_of(value)
                    self.require(found == first[1], f"element type of {kind} '{name}'", found, expected)

    def _values(self, name: str) -> tuple[SSAValue, ...]:
        """The values of a field: none if it is optional and absent, several if it is variadic."""
        field: SSAValue | Sequence[SSAValue] | None = getattr(self, name)
        if field is None:
            return ()
        return (field,) if isinstance(field, SSAValue) else tuple(field)

    def verify_more(self) -> None:
        """Rules beyond the signature. Raises VerifyException."""

    @classmethod
    def infer(cls, element: Attribute, **operands: SSAValue | None) -> Tensor:
        """The type of the only result, by the signature."""
        return cls.SIGNATURE.infer(cls.name, element, **operands)

    def require(self, holds: bool, subject: str, found: object, expected: object) -> None:
        """Raises VerifyException ``subject`` found, expected, unless ``holds``."""
        if not holds:
            raise VerifyException(f"{self.name}: {subject}: found {found}, expected {expected}")
