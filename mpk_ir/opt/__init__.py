"""The `mpk-opt` tool: read IR, run passes, print IR or what a target makes of it."""
