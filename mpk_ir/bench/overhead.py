"""What a call from Python costs, beside eager and torch.compile itself: `python -m mpk_ir.bench.overhead`.

Needs a GPU and a torch built with CUDA. One JSON object a line: a case, who runs it, and microseconds a call: ``host``,
until the call returns; ``device``, from one call to the next on the stream, so the larger of what host and GPU take;
``kernel``, the same when the GPU has been given all calls before it begins the first, so without the host.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core.errors import DeviceError, MpkError

if TYPE_CHECKING:
    import torch


MOST_QUEUED = 400
"""Launches that a stream surely holds before the host has to wait."""

SLEEP_CYCLES_A_CALL = 400_000
"""Of the GPU before the queued calls begin: longer than the host takes to queue one."""


@dataclass(frozen=True)
class What:
    """``calls`` of each run; whether ``inductor`` is measured too."""

    calls: int
    inductor: bool


def measure(call: Callable[[], object], calls: int) -> dict[str, float]:
    """Microseconds a call, the least of five runs each."""
    for _ in range(20):
        call()
    runs = [_run(call, calls, sleep_cycles=0) for _ in range(5)]
    queued = min(calls, MOST_QUEUED)
    kernel = min(_run(call, queued, sleep_cycles=SLEEP_CYCLES_A_CALL * queued)[1] for _ in range(5))
    host, device = (min(column) for column in zip(*runs, strict=True))
    return {"host": round(host, 2), "device": round(device, 2), "kernel": round(kernel, 2)}


def _run(call: Callable[[], object], calls: int, *, sleep_cycles: int) -> tuple[float, float]:
    """Microseconds a call, (host, device); the device sleeps first."""
    import torch

    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    if sleep_cycles:
        torch.cuda._sleep(sleep_cycles)  # pyright: ignore[reportPrivateUsage]
    first.record()
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    host = time.perf_counter() - begin
    last.record()
    torch.cuda.synchronize()
    return 1e6 * host / calls, 1e3 * first.elapsed_time(last) / calls


def cases() -> dict[str, tuple[torch.nn.Module, tuple[torch.Tensor, ...]]]:
    """By name: what is called, and with what."""
    import torch

    class TwoOps(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x) + y

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device="cuda", dtype=torch.bfloat16)

    linear = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU()).to("cuda", torch.bfloat16)
    return {"two ops": (TwoOps(), (tensor(8, 64), tensor(8, 64))), "linear relu": (linear, (tensor(8, 64),))}


def report(name: str, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], what: What) -> None:
    """Print the lines of one case. "dynamo" and "dynamo, AOTAutograd" give a result that is there already: what torch
    itself takes for a call; "of forward" is without what torch.compile puts around modules, as with a plain function.
    With "region" flat arguments go straight to the kernel, "launch" has none."""
    import torch

    from .. import compile
    from ..pytorch import synchronize
    from ..pytorch.backend import mpk

    whole = compile(module, inputs)
    arguments = dict(zip(whole.imported.inputs, inputs, strict=True))
    flat = [arguments.get(number) for number in range(max(arguments) + 1)]
    result = module(*inputs)
    out = result.clone()
    backend, own = partial(mpk, options={"fullgraph": True}), copy.deepcopy(module)
    own.compile(backend=backend)
    ways: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "eager, one op": partial(torch.neg, result, out=out),
        "eager": partial(module, *inputs),
        "dynamo": partial(_compiled(module, _gives(result)), *inputs),
        "dynamo, AOTAutograd": partial(_compiled(module, _gives_through_aot(result)), *inputs),
        "dynamo of forward": partial(_compiled(module.forward, _gives(result)), *inputs),
        "torch.compile mpk": partial(_compiled(module, backend), *inputs),
        "torch.compile mpk of forward": partial(_compiled(module.forward, backend), *inputs),
        "Module.compile mpk": partial(own, *inputs),
        "mpk_ir.compile": partial(whole, *inputs),
        "region": partial(whole.region, flat),
        "launch": partial(whole.region.engine.run, 1),
    }
    if what.inductor:
        ways["inductor"] = partial(_compiled(module, "inductor"), *inputs)
    for way, call in ways.items():
        torch._dynamo.reset()  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType] # no other way's guards are tried
        facts = {"case": name, "way": way, "device": torch.cuda.get_device_name(), "us": measure(call, what.calls)}
        print(json.dumps(facts), flush=True)
    synchronize()


def _compiled(called: Callable[..., Any], backend: Any) -> Any:
    import torch

    return torch.compile(called, backend=backend)


def _gives(result: torch.Tensor) -> Any:
    return lambda graph, inputs: lambda *arguments: (result,)


def _gives_through_aot(result: torch.Tensor) -> Any:
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch._aot_autograd.utils import make_boxed_func

    def compiler(graph: Any, inputs: Any) -> Any:
        return make_boxed_func(lambda *arguments: (result,))

    return aot_autograd(fw_compiler=compiler, inference_compiler=compiler)


def main() -> int:
    """Print the measurements; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000, help="of each run")
    parser.add_argument("--inductor", action="store_true", help="torch.compile's own backend too; takes half a minute")
    parsed = parser.parse_args()
    what = What(parsed.calls, parsed.inductor)
    import torch

    try:
        if not torch.cuda.is_available():
            raise DeviceError("no GPU that torch can use", advice="install a torch built with CUDA")
        with torch.no_grad():
            for name, (module, inputs) in cases().items():
                report(name, module, inputs, what)
    except MpkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
