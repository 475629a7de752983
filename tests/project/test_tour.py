"""The tour shows what mpk-opt prints today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_block_of_the_tour_is_current() -> None:
    result = subprocess.run([sys.executable, "docs/tour_blocks.py", "--check"], cwd=ROOT, check=False)
    assert result.returncode == 0, "docs/tour.md is stale: run `python docs/tour_blocks.py`"
