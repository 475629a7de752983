"""The Python interface in two calls: compile a checkpoint, parse IR."""

from __future__ import annotations

from pathlib import Path

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from .core.errors import UsageError
from .executable import Executable
from .opt.source import Source
from .universe import new_context
from .verification import verify


def compile(
    model: str | Path,
    target: str = "auto",
    *,
    batch: int = 1,
    rows: int | None = None,
    max_length: int = 256,
    page_size: int = 16,
) -> Executable:
    """Compile the checkpoint folder ``model`` for ``target`` and bind its weights.

    ``target`` is a GPU ("h200"), "sim" for the simulator, or "auto": the GPU if there is one. The result serves
    ``batch`` requests of up to ``max_length`` tokens, prompt included, and computes ``rows`` token positions in a step
    (by default 8, or ``batch`` if that is more). Raises CheckpointError, UnsupportedError, UsageError or DeviceError,
    which say what and where.
    """
    from .cli.run_command import choose_target
    from .compiler import compile_model
    from .frontend import StepOptions, open_checkpoint, tokenizer

    folder = Path(model)
    if not folder.is_dir():
        raise UsageError("no such folder", where=str(folder), advice="name the folder that holds config.json")
    options = StepOptions(batch, rows or max(8, batch), max_length, page_size)
    choice = choose_target(target)
    program = compile_model(folder, choice.target, options).program
    parameters = open_checkpoint(folder).tensor
    if choice.device is None:
        from .runtime.simulator import Simulator

        return Executable(program, Simulator(program, parameters), tokenizer(folder), steps_per_launch=1)
    from .runtime.executor import GpuExecutor

    return Executable(program, GpuExecutor(program, parameters, choice.device), tokenizer(folder))


def parse(text: str, ctx: Context | None = None, *, name: str = "<text>") -> ModuleOp:
    """The module that ``text`` spells, verified, every op with its place in ``name``.

    Raises DiagnosticError for a syntax error and IRError for IR that breaks a rule, with file, line and column.
    """
    module = Source(name, text).parse(ctx or new_context())
    verify(module)
    return module
