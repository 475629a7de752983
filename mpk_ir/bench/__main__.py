"""`python -m mpk_ir.bench`: the same as `mpk bench`."""

from __future__ import annotations

import sys

from ..cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
