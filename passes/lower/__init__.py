"""The pass from `sm` to `cuda`."""
