from .. import __doc__ as _guard  # fails on a bare `import codegen`: one identity only, mpk_ir.codegen

del _guard
