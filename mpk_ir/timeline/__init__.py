"""When every task of a step runs: predicted from a program's tables, or measured by the kernel itself."""
