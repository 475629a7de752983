"""The base of every `tg` op that computes: shapes checked from its signature, no effects."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import IRDLOperation, ParsePropInAttrDict, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from .signature import Signature
from .tensors import Tensor


class TgOp(IRDLOperation, ABC):
    """A value computed from values. Subclasses give ``SIGNATURE``; ``verify_more`` holds what it cannot say."""

    SIGNATURE: ClassVar[Signature]
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)

    def verify_(self) -> None:
        operands: dict[str, SSAValue | None] = {name: getattr(self, name) for name in self.SIGNATURE.operands}
        results: dict[str, SSAValue] = {name: getattr(self, name) for name in self.SIGNATURE.results}
        self.SIGNATURE.check(self.name, operands, results)
        self.verify_more()

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
