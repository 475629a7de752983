from .. import __doc__ as _guard  # fails on a bare `import passes`: one identity only, mpk_ir.passes

del _guard
