"""Facts every layer shares: errors, targets, dtypes. Imports nothing from the rest of mpk_ir, nor xdsl."""
