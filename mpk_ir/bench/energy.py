"""Energy that a GPU has used, by NVML's counter (package nvidia-ml-py); absent where that is not installed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any


def energy_counter(uuid: str) -> Callable[[], float] | None:
    """Joules since the driver was loaded of the GPU ``uuid``, as torch spells it; None where NVML, its package or its
    counter is missing."""
    with suppress(Exception):  # NVML's own errors are only known once it is there
        nvml: Any = import_module("pynvml")
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        return lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000.0
    return None
