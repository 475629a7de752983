"""mpk-ir: compile a whole LLM forward pass, and many decode steps, into one persistent CUDA kernel."""

from pathlib import Path as _Path

__version__ = "0.1.0"

# A checkout whose file system flattened the four links still imports: its root joins the path.
_here = _Path(__file__).parent
if not (_here / "dialects").is_dir() and (_here.parent / "dialects").is_dir():
    __path__.append(str(_here.parent))
