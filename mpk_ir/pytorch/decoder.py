"""A transformers decoder compiled to a step that generates: exported with a static cache, raised, planned."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdsl.context import Context

from ..compiler import Compilation, attach_metadata, compile_module
from ..core.errors import CheckpointError, UnsupportedError, UsageError
from ..core.target import Target
from ..executable import Executable
from ..frontend import StepOptions
from ..frontend.aten.decoder import Decoder, canonical_names, raise_decoder
from ..frontend.aten.importer import Roles, import_graph
from ..passes.tg.canonicalize import TgCanonicalize
from ..passes.tg.raise_ops import TgRaise
from .module import decomposed, export, roles_of

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from ..codegen.program import Program
    from ..frontend import Tokenizer
    from ..runtime.driver import Device

PREFIX = "model."
"""What transformers' wrapper for export puts before the names of a checkpoint."""


def compile_decoder(
    model: Any, target: Target, options: StepOptions, device: Device | None = None, tokenizer: Tokenizer | None = None
) -> Executable:
    """``model``, a transformers model for causal language modelling, as an `Executable`.

    Raises UnsupportedError where its graph is not that of a decoder we know, with the line of Python.
    """
    options = replace(options, stop_tokens=options.stop_tokens or _stop_tokens(model))
    raised = decoder_step(model, options)
    program = plan_decoder(raised, target, options).program
    return bind_decoder(program, raised.weights, device, tokenizer)


def bind_decoder(
    program: Program, weights: Mapping[str, Any], device: Device | None, tokenizer: Tokenizer | None = None
) -> Executable:
    """``program``, the step of a decoder that has these ``weights``, on ``device``, or on the simulator."""

    def load(name: str) -> torch.Tensor:
        return weights[name]()

    if device is None:
        from ..runtime.simulator import Simulator

        return Executable(program, Simulator(program, load), tokenizer, steps_per_launch=1)
    from ..runtime.executor import GpuExecutor

    return Executable(program, GpuExecutor(program, load, device), tokenizer)


def plan_decoder(decoder: Decoder, target: Target, options: StepOptions) -> Compilation:
    """The step planned; the module is lowered in place."""
    attach_metadata(decoder.module, options, decoder.vocab_size)
    return compile_module(decoder.module, target)


def decoder_step(model: Any, options: StepOptions) -> Decoder:
    """The raised step of ``model``, its parameters named as in a checkpoint."""
    with _wide_window(model, options):
        program = decomposed(export_decoder(model, options))
    tensors: dict[str, Any] = {**program.state_dict, **program.constants}
    names = {name: first.removeprefix(PREFIX) for name, first in canonical_names(tensors).items()}
    plain = roles_of(program).roles
    renamed = {number: names[name] for number, name in plain.parameters.items()}
    graph = import_graph(program.graph_module, Roles(renamed, plain.states, plain.updates)).module
    for one in (TgCanonicalize(), TgRaise(), TgCanonicalize()):
        one.apply(Context(), graph)
    parameters = {first: tensors[name] for name, first in reversed(names.items())}
    return raise_decoder(graph, parameters.__getitem__, options, _window(model, options))


def export_decoder(model: Any, options: StepOptions) -> ExportedProgram:
    """``model`` over ``options.rows`` tokens of one sequence and a static cache of ``options.max_length`` positions.

    Raises UsageError without transformers, UnsupportedError if torch.export fails.
    """
    import torch

    try:
        from transformers.integrations.executorch import TorchExportableModuleWithStaticCache
    except ImportError as error:
        raise UsageError("a transformers model needs transformers", advice="pip install 'mpk-ir[hf]'") from error
    if options.rows < 2:
        raise UsageError(f"rows: found {options.rows}, expected 2 or more for an exported model")
    with _static_cache(model, options):
        wrapper = TorchExportableModuleWithStaticCache(model)
        ids = torch.zeros(1, options.rows, dtype=torch.long, device=model.device)
        positions = torch.arange(options.rows, device=model.device)
        return export(wrapper, (), {"input_ids": ids, "cache_position": positions})


def load_pretrained(folder: Path) -> Any:
    """The model of a checkpoint folder by transformers' own code. Raises CheckpointError if it cannot load it."""
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(str(folder), dtype="auto").eval()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"transformers cannot load it: {error}", where=str(folder)) from error


@contextmanager
def _static_cache(model: Any, options: StepOptions) -> Generator[None]:
    """The model's settings for generation such that its wrapper makes the cache we want; restored afterwards."""
    import copy

    before = model.generation_config
    if before is None:
        raise UnsupportedError("the model has no generation config: it is none for generation")
    settings = copy.copy(before)
    settings.use_cache, settings.cache_implementation = True, "static"
    settings.cache_config = {"batch_size": 1, "max_cache_len": options.max_length, "device": model.device}
    model.generation_config = settings
    try:
        yield
    finally:
        model.generation_config = before


@contextmanager
def _wide_window(model: Any, options: StepOptions) -> Generator[None]:
    """A window that is longer than the cache in the place of one that is shorter: so all caches hold all positions, as
    pages do, and the masks still tell which layers have a window."""
    config = model.config.get_text_config(decoder=True)
    before = getattr(config, "sliding_window", None)
    if _window(model, options):
        config.sliding_window = options.max_length + 1
    try:
        yield
    finally:
        if before is not None:
            config.sliding_window = before


def _window(model: Any, options: StepOptions) -> int:
    """The latest positions that layers with a sliding window see; 0 where that is all of the cache."""
    window = getattr(model.config.get_text_config(decoder=True), "sliding_window", None)
    return window if window is not None and window < options.max_length else 0


def _stop_tokens(model: Any) -> tuple[int, ...]:
    ids = getattr(model.generation_config, "eos_token_id", None)
    return () if ids is None else tuple(ids) if isinstance(ids, list | tuple) else (int(ids),)
