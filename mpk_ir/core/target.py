"""What the compiler knows of a machine, as data. Measured figures carry their source in docs/performance.md."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Target:
    """One kind of machine: limits the plan must respect and costs the planner weighs."""

    name: str
    arch: str
    num_sms: int
    shared_memory_bytes: int
    read_bandwidth_tb_s: float
    handoff_idle_us: float
    handoff_loaded_us: float
    task_overhead_us: float

    @property
    def sm_bytes_per_us(self) -> float:
        """The share of memory bandwidth one SM gets when all stream, bytes per microsecond."""
        return self.read_bandwidth_tb_s * 1e6 / self.num_sms


H200 = Target("h200", "sm_90a", 132, 227 * 1024, 4.65, 0.4, 1.8, 0.3)
H100 = Target("h100", "sm_90a", 132, 227 * 1024, 3.1, 0.4, 1.8, 0.3)
# Few, large tasks: on a CPU what costs is the number of numpy calls.
SIM = Target("sim", "sm_90a", 4, 227 * 1024, 0.02, 0.4, 1.8, 20.0)

TARGETS = {target.name: target for target in (H200, H100, SIM)}


def target_of(name: str) -> Target:
    """The target called ``name``. Raises UsageError for any other."""
    if name not in TARGETS:
        raise UsageError(f"unknown target '{name}'", advice=did_you_mean(name, TARGETS))
    return TARGETS[name]
