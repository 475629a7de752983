"""mpk-ir: compile a whole LLM forward pass, and many decode steps, into one persistent CUDA kernel."""

from pathlib import Path as _Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import compile, parse
    from .codegen.program import Program
    from .compiler import Compilation, compile_model, compile_module
    from .core.errors import MpkError
    from .core.target import Target, target_of
    from .executable import Executable, Generation
    from .pass_manager import Hooks, PassInstrument, PassManager, RunReport
    from .universe import new_context
    from .verification import structurally_equal, verify

__version__ = "0.1.0"

__all__ = [
    "Compilation",
    "Executable",
    "Generation",
    "Hooks",
    "MpkError",
    "PassInstrument",
    "PassManager",
    "Program",
    "RunReport",
    "Target",
    "compile",
    "compile_model",
    "compile_module",
    "new_context",
    "parse",
    "structurally_equal",
    "target_of",
    "verify",
]

_HOME = {
    "api": ("compile", "parse"),
    "codegen.program": ("Program",),
    "compiler": ("Compilation", "compile_model", "compile_module"),
    "core.errors": ("MpkError",),
    "core.target": ("Target", "target_of"),
    "executable": ("Executable", "Generation"),
    "pass_manager": ("Hooks", "PassInstrument", "PassManager", "RunReport"),
    "universe": ("new_context",),
    "verification": ("structurally_equal", "verify"),
}


def __getattr__(name: str) -> object:
    """Public names are imported at first use: this package is below its own layers as well as above them."""
    from importlib import import_module

    for module, names in _HOME.items():
        if name in names:
            value = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# A checkout whose file system flattened the four links still imports: its root joins the path.
_here = _Path(__file__).parent
if not (_here / "dialects").is_dir() and (_here.parent / "dialects").is_dir():
    __path__.append(str(_here.parent))
