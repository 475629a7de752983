"""The Python interface in two calls: compile a checkpoint, a module or an exported program, and parse IR."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from .core.errors import UsageError
from .executable import Executable
from .opt.source import Source
from .universe import new_context
from .verification import verify

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.nn import Module

    from .pytorch.module import CompiledModule


@overload
def compile(
    model: str | Path, example_inputs: None = None, target: str = "auto", **capacity: int | None
) -> Executable: ...


@overload
def compile(model: Module | ExportedProgram, example_inputs: Any = None, target: str = "auto") -> CompiledModule: ...


def compile(
    model: str | Path | Module | ExportedProgram,
    example_inputs: Any = None,
    target: str = "auto",
    **capacity: Any,
) -> Executable | CompiledModule:
    """Compile ``model`` for ``target`` and bind its weights.

    ``target`` is a GPU ("h200"), "sim" for the simulator, or "auto": the GPU if there is one.

    A checkpoint folder gives an `Executable` that serves ``batch`` requests of up to ``max_length`` tokens, prompt
    included, and computes ``rows`` token positions in a step (by default 8, or ``batch`` if that is more), with a
    cache in pages of ``page_size`` positions. So does a transformers model for causal language modelling.

    A torch module is exported with ``example_inputs`` (a tuple of its arguments; a dict passes them by name), and an
    ExportedProgram taken as it is: the result is called as the module is.

    Raises CheckpointError, UnsupportedError, UsageError or DeviceError, which say what and where.
    """
    if isinstance(model, str | Path):
        return _compile_checkpoint(Path(model), target, **capacity)
    if example_inputs is None and hasattr(model, "generation_config"):
        return _compile_decoder(model, target, **capacity)
    if capacity:
        raise UsageError(f"{', '.join(capacity)}: only for a checkpoint folder or a transformers model")
    from .cli.run_command import choose_target
    from .pytorch.module import CompiledModule, export

    choice = choose_target(target)
    if hasattr(model, "graph_signature"):
        return CompiledModule(cast("ExportedProgram", model), choice.target, choice.device)
    module = cast("Module", model)
    if not callable(getattr(module, "forward", None)):
        raise UsageError(
            f"cannot compile a {type(model).__name__}",
            advice="give a checkpoint folder, a torch.nn.Module or a torch.export.ExportedProgram",
        )
    if isinstance(example_inputs, dict):
        exported = export(module, (), cast("dict[str, Any]", example_inputs))
    else:
        exported = export(module, () if example_inputs is None else example_inputs)
    return CompiledModule(exported, choice.target, choice.device)


def _compile_checkpoint(
    folder: Path,
    target: str,
    *,
    batch: int = 1,
    rows: int | None = None,
    max_length: int = 256,
    page_size: int = 16,
) -> Executable:
    from .cli.run_command import choose_target
    from .frontend import StepOptions, load_config, open_checkpoint, tokenizer
    from .program_cache import ProgramCache

    if not folder.is_dir():
        raise UsageError("no such folder", where=str(folder), advice="name the folder that holds config.json")
    options = StepOptions(batch, rows or max(8, batch), max_length, page_size)
    choice = choose_target(target)
    program = ProgramCache().step(load_config(folder), choice.target, options)
    parameters = open_checkpoint(folder).tensor
    if choice.device is None:
        from .runtime.simulator import Simulator

        return Executable(program, Simulator(program, parameters), tokenizer(folder), steps_per_launch=1)
    from .runtime.executor import GpuExecutor

    return Executable(program, GpuExecutor(program, parameters, choice.device), tokenizer(folder))


def _compile_decoder(
    model: Any,
    target: str,
    *,
    batch: int = 1,
    rows: int | None = None,
    max_length: int = 256,
    page_size: int = 16,
) -> Executable:
    from .cli.run_command import choose_target
    from .frontend import StepOptions
    from .pytorch.decoder import compile_decoder

    choice = choose_target(target)
    options = StepOptions(batch, rows or max(8, batch), max_length, page_size)
    return compile_decoder(model, choice.target, options, choice.device)


def parse(text: str, ctx: Context | None = None, *, name: str = "<text>") -> ModuleOp:
    """The module that ``text`` spells, verified, every op with its place in ``name``.

    Raises DiagnosticError for a syntax error and IRError for IR that breaks a rule, with file, line and column.
    """
    module = Source(name, text).parse(ctx or new_context())
    verify(module)
    return module
