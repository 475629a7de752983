"""`mpk run`: a checkpoint continues prompts, on a GPU if there is one, else on the simulator."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import DeviceError, UnsupportedError, UsageError
from ..core.ranks import STRATEGIES
from ..core.target import SIM, TARGETS, Target, target_of
from .arguments import Parser, add_capacity, one_of, positive_int, target_name, token_ids
from .ranks import Ranks

if TYPE_CHECKING:
    from ..codegen.program import Program
    from ..executable import Executable, Generation
    from ..frontend import StepOptions, Tokenizer
    from ..runtime.driver import Device
    from .progress import Progress

SUMMARY = "continue prompts with a checkpoint"


def parser() -> Parser:
    """The command's options."""
    parser = Parser(prog="mpk run", description=SUMMARY)
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="checkpoint folder")
    parser.add_argument(
        "--prompt", dest="prompts", action="append", metavar="TEXT", help="text to continue; repeatable"
    )
    parser.add_argument(
        "--tokens", dest="prompts", action="append", type=token_ids, metavar="IDS", help="the same as ids: 1,2,3"
    )
    parser.add_argument("--max-new-tokens", type=positive_int, default=64, metavar="N", help="per request (64)")
    parser.add_argument("--batch", type=positive_int, metavar="N", help="repeat the prompts until there are N requests")
    parser.add_argument(
        "--target", type=_target_or_auto, default="auto", help=f"auto, {', '.join(TARGETS)} (default: auto)"
    )
    parser.add_argument(
        "--one-launch",
        action="store_true",
        help="prompts and all new tokens in a single launch: no program of their own for long prompts, text at the end",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on one line instead of text")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the order in which simulated SMs take turns (0)"
    )
    parser.add_argument(
        "--ranks", type=positive_int, metavar="N", help="split the model over N parts of the GPU (under torchrun: GPUs)"
    )
    parser.add_argument(
        "--overlap",
        type=one_of("--overlap", *STRATEGIES),
        default=STRATEGIES[0],
        help=f"how ranks exchange: {', '.join(STRATEGIES)} (default: {STRATEGIES[0]})",
    )
    add_capacity(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Compile, load, generate, print. Raises MpkError subclasses."""
    if not arguments.prompts:
        raise UsageError("no prompt", advice="give --prompt TEXT or --tokens 1,2,3")
    from ..executable import encode_prompt
    from ..frontend import tokenizer
    from .progress import Progress
    from .streaming import generate_streaming

    ranks = Ranks.of(arguments.ranks, arguments.overlap)
    progress = Progress(quiet=arguments.json or not ranks.speaks)
    choice = choose_target(arguments.target, ranks.device_ordinal)
    progress.say(f"{choice.target.name}: {choice.reason}")
    model = _unknown_family(arguments.model)
    text = tokenizer(arguments.model)
    prompts = [encode_prompt(prompt, text) for prompt in _repeated(arguments.prompts, arguments.batch)]
    if model is None:
        executable = _load(arguments, choice, prompts, progress, ranks)
        executable.tokenizer = text
    elif ranks.count > 1:
        raise model
    else:
        executable = _load_exported(arguments, choice, prompts, text, progress)
    if arguments.json:
        generation = executable.generate(prompts, arguments.max_new_tokens, one_launch=arguments.one_launch)
        if ranks.speaks:
            print(json.dumps(_as_json(generation, executable, progress.seconds)))
        return 0
    if not ranks.speaks:  # the same launches as the rank that shows what they yield
        executable.generate(
            prompts, arguments.max_new_tokens, lambda request, token: None, one_launch=arguments.one_launch
        )
        return 0
    generation = generate_streaming(
        executable, prompts, arguments.max_new_tokens, progress, one_launch=arguments.one_launch
    )
    _summarize(generation, progress)
    return 0


@dataclass(frozen=True)
class Choice:
    """The target to compile for, the GPU if it is not simulated, and why."""

    target: Target
    device: Device | None
    reason: str


def choose_target(name: str, ordinal: int = 0) -> Choice:
    """The target called ``name``; `auto` is that of GPU ``ordinal`` if there is one, else the simulator's.

    Raises DeviceError if ``name`` asks for a GPU that is not there, UnsupportedError for one that has no kernel.
    """
    from ..runtime.driver import find_device

    if name == SIM.name:
        return Choice(SIM, None, "simulated on the CPU")
    device = find_device(ordinal)
    named = [t for t in TARGETS.values() if device and t.name.upper() in device.name and t.num_sms == device.num_sms]
    fitting = [t for t in named if t.runs_kernel]
    if name == "auto":
        if device and fitting:
            return Choice(fitting[0], device, device.name)
        found = f"{device.name} is no target yet" if device else "no GPU found"
        return Choice(SIM, None, f"simulated on the CPU: {found}")
    target = target_of(name)
    target.require_kernel()
    if target not in fitting or device is None:
        found = f"found {device.name} with {device.num_sms} SMs" if device else "found no GPU"
        raise DeviceError(f"target '{name}': {found}", advice="`--target auto` takes what there is")
    return Choice(target, device, device.name)


def _load(
    arguments: argparse.Namespace,
    choice: Choice,
    prompts: list[list[int]],
    progress: Progress,
    ranks: Ranks,
) -> Executable:
    from ..executable import Executable
    from ..frontend import StepOptions, open_checkpoint
    from ..program_cache import ProgramCache

    with progress.stage("plan", "planning"):
        length = max(map(len, prompts)) + arguments.max_new_tokens
        rows = arguments.rows or max(8, len(prompts))
        options = StepOptions(len(prompts), rows, length, arguments.page_size)
        checkpoint = open_checkpoint(arguments.model)
        target = choice.target if choice.device is None else ranks.part_of(choice.target)
        program = ProgramCache().step(checkpoint.config, target, options, ranks.parallel)
    if choice.device is None:
        from ..runtime.interleaving import RandomOrder
        from ..runtime.simulator import Simulator, SimulatorOptions

        with progress.stage("load", "loading weights"):
            order = SimulatorOptions(RandomOrder(arguments.seed))
            engine = Simulator(program, checkpoint, order, ranks.link())
        return Executable(program, engine, steps_per_launch=1)
    from ..prefill import Prefill
    from ..runtime.cache import KernelCache
    from ..runtime.executor import GpuExecutor
    from ..runtime.weight_pool import WeightPool

    prompt_program = None if ranks.count > 1 else _prefill_program(arguments, options, choice.target, prompts, progress)
    with progress.stage("nvrtc", "compiling the kernel"):
        for one in filter(None, (program, prompt_program)):
            KernelCache().compile(one.source, one.headers, one.target.arch)
    with progress.stage("load", "loading weights"):
        pool = WeightPool(states=True)
        engine = GpuExecutor(program, checkpoint, choice.device, peers=ranks.peers(), pool=pool)
        if prompt_program is None:
            return Executable(program, engine)
        prefill = Prefill(prompt_program, GpuExecutor(prompt_program, checkpoint, choice.device, pool=pool))
    return Executable(program, engine, prefill=prefill)


def _prefill_program(
    arguments: argparse.Namespace, options: StepOptions, target: Target, prompts: list[list[int]], progress: Progress
) -> Program | None:
    """What takes long prompts; None if there are none, one launch takes all, or, as is said then, it has none."""
    from ..frontend import load_config
    from ..prefill import compile_prefill, is_worth, rows_for

    lengths = [len(prompt) for prompt in prompts]
    if arguments.one_launch or not is_worth(lengths):
        return None
    try:
        with progress.stage("plan prefill", "planning the prefill"):
            return compile_prefill(load_config(arguments.model), target, options, rows_for(lengths))
    except UnsupportedError as error:
        progress.say(f"prompts go through the decoding kernel: {error}")
        return None


def _unknown_family(folder: Path) -> UnsupportedError | None:
    """What keeps the config-driven path from the checkpoint's model; None if nothing does.

    Raises CheckpointError for a folder that is no checkpoint, and that error if there is no transformers to ask.
    """
    from importlib.util import find_spec

    from ..frontend import load_config

    try:
        load_config(folder)
    except UnsupportedError as error:
        if find_spec("transformers") is None:
            error.advice = f"{error.advice or ''}; pip install 'mpk-ir[hf]' runs it by its own code".lstrip("; ")
            raise
        return error
    return None


def _load_exported(
    arguments: argparse.Namespace,
    choice: Choice,
    prompts: list[list[int]],
    tokenizer: Tokenizer | None,
    progress: Progress,
) -> Executable:
    """The checkpoint by transformers' code, exported and raised."""
    from ..frontend import StepOptions
    from ..pytorch.decoder import compile_decoder, load_pretrained

    with progress.stage("load", "loading with transformers"):
        model = load_pretrained(arguments.model)
    length = max(map(len, prompts)) + arguments.max_new_tokens
    options = StepOptions(len(prompts), arguments.rows or max(8, len(prompts)), length, arguments.page_size)
    with progress.stage("plan", "exporting and planning"):
        return compile_decoder(model, choice.target, options, choice.device, tokenizer)


def _repeated(prompts: list[str | list[int]], batch: int | None) -> list[str | list[int]]:
    if batch is None:
        return prompts
    if batch < len(prompts):
        raise UsageError(f"--batch {batch} for {len(prompts)} prompts", advice="it must be at least their number")
    return [prompts[request % len(prompts)] for request in range(batch)]


def _as_json(generation: Generation, executable: Executable, seconds: dict[str, float]) -> dict[str, Any]:
    timings = generation.timings
    answer: dict[str, Any] = {"tokens": generation.tokens}
    if generation.text is not None:
        answer["text"] = generation.text
    answer["target"] = executable.program.target.name
    answer["device"] = executable.engine.device_name
    answer["timings"] = {f"{stage}_seconds": time for stage, time in seconds.items()} | {
        "generate_seconds": timings.seconds,
        "steps": timings.steps,
        "tokens_per_second": timings.tokens_per_second,
    }
    return answer


def _summarize(generation: Generation, progress: Progress) -> None:
    timings = generation.timings
    progress.say(f"{timings.tokens} tokens in {timings.seconds:.2f} s: {timings.tokens_per_second:.1f} tokens/s")
    parts = [f"{stage} {seconds:.2f} s" for stage, seconds in progress.seconds.items()]
    if timings.first_token_seconds is not None:
        later = timings.seconds - timings.first_token_seconds
        parts += [f"to the first token {timings.first_token_seconds:.2f} s", f"the rest {later:.2f} s"]
    step_ms = 1e3 * timings.seconds / timings.steps
    progress.say(f"time: {', '.join(parts)}; {timings.steps} steps of {step_ms:.2f} ms")


def _target_or_auto(text: str) -> str:
    return text if text == "auto" else target_name(text)
