"""Our dialects by name; a module is imported when an op of its dialect is first met."""

from .. import __doc__ as _guard  # fails on a bare `import dialects`: one identity only, mpk_ir.dialects

del _guard

ALL_DIALECTS = {
    "tg": "mpk_ir.dialects.tg:Tg",
    "sm": "mpk_ir.dialects.sm:Sm",
    "cuda": "mpk_ir.dialects.cuda:Cuda",
}
"""Dialect name -> `module:attribute` of its `Dialect`."""
