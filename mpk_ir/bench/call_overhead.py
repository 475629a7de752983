"""Microseconds that a call of a compiled region takes from Python beyond its kernel: `python -m
mpk_ir.bench.call_overhead`. Needs a GPU and a torch built with CUDA."""

from __future__ import annotations

import json
import time

from ..core.errors import DeviceError

CALLS = 500


def main() -> None:
    """Print one JSON object: host time of a call, device time of its kernel, both in microseconds."""
    import torch

    from ..pytorch.backend import mpk

    if not torch.cuda.is_available():
        raise DeviceError("no GPU that torch can use")
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU()).to("cuda", torch.bfloat16)
    compiled, x = torch.compile(model, backend=mpk), torch.randn(8, 64, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        for _ in range(10):
            compiled(x)
        torch.cuda.synchronize()
        begin, first, last = time.perf_counter(), *(torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(CALLS):
            compiled(x)
        last.record()
        host = time.perf_counter() - begin
        torch.cuda.synchronize()
    facts = {
        "device": torch.cuda.get_device_name(),
        "calls": CALLS,
        "host_us": 1e6 * host / CALLS,
        "device_us": 1e3 * first.elapsed_time(last) / CALLS,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
