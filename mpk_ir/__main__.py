"""`python -m mpk_ir COMMAND`, also under torchrun, is `mpk COMMAND`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
