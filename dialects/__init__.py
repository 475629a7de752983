from .. import __doc__ as _guard  # fails on a bare `import dialects`: one identity only, mpk_ir.dialects

del _guard
