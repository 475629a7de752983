"""`tile` and its rules: one function per tg op."""
