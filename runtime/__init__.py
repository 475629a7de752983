from .. import __doc__ as _guard  # fails on a bare `import runtime`: one identity only, mpk_ir.runtime

del _guard
