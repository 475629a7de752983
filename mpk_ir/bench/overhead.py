"""What a call from Python costs, beside eager and inductor: `python -m mpk_ir.bench.overhead`.

Needs a GPU and a torch built with CUDA. One JSON object a line: a case, who runs it, and microseconds a call: ``host``,
until the call returns; ``device``, from one call to the next on the stream, so the larger of what host and GPU take;
``kernel``, the same when the GPU has been given all calls before it begins the first, so without the host.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..core.errors import DeviceError

if TYPE_CHECKING:
    import torch


MOST_QUEUED = 400
"""Launches that a stream surely holds before the host has to wait."""

SLEEP_CYCLES_A_CALL = 400_000
"""Of the GPU before the queued calls begin: longer than the host takes to queue one."""


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


def report(name: str, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], calls: int) -> None:
    """Print the lines of one case: with "region" flat arguments go straight to the kernel, "launch" has none."""
    import torch

    from .. import compile
    from ..pytorch import synchronize
    from ..pytorch.backend import mpk

    whole = compile(module, inputs)
    arguments = dict(zip(whole.imported.inputs, inputs, strict=True))
    flat = [arguments.get(number) for number in range(max(arguments) + 1)]
    through_dynamo = torch.compile(module, backend=mpk, options={"fullgraph": True})
    ways: dict[str, Callable[[], object]] = {
        "eager": lambda: module(*inputs),
        "inductor": partial(torch.compile(module, backend="inductor"), *inputs),
        "torch.compile mpk": partial(through_dynamo, *inputs),
        "mpk_ir.compile": partial(whole, *inputs),
        "region": partial(whole.region, flat),
        "launch": partial(whole.region.engine.run, 1),
    }
    for way, call in ways.items():
        facts = {"case": name, "way": way, "device": torch.cuda.get_device_name(), "us": measure(call, calls)}
        print(json.dumps(facts), flush=True)
    synchronize()


def main() -> None:
    """Print the measurements. Raises DeviceError without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000, help="of each run")
    calls = parser.parse_args().calls
    import torch

    if not torch.cuda.is_available():
        raise DeviceError("no GPU that torch can use")
    with torch.no_grad():
        for name, (module, inputs) in cases().items():
            report(name, module, inputs, calls)


if __name__ == "__main__":
    main()
