"""What the compiler knows of a machine, as data. Every figure says where it comes from; docs/targets.md lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum

from .errors import UnsupportedError, UsageError, did_you_mean

LEAST_ARCH = 90


class Source(StrEnum):
    """Where a figure comes from."""

    MEASURED = "measured"
    DATASHEET = "datasheet"
    TAKEN_OVER = "taken over from h200, not measured"
    CHOSEN = "chosen, no real machine"
    LINK = "900 GB/s of NVLink 4, half of it each way, by the datasheet; latency as published of others, not measured"


@dataclass(frozen=True)
class Costs:
    """What the parts of a task cost on one SM: the constants of the timeline, fitted to traces of the kernel.

    ``handoff_us``: of polled data, from its producer's end until a task that waits can begin to load it, while memory
    is idle; ``handoff_loaded_us``: the same while it streams. ``poll_us``: from begin until then
    if all has arrived before. ``signal_us``: from computed to released. ``stream_efficiency``: the part of read
    bandwidth that weights reach behind a ring; ``stream_bytes_per_us``: the most one SM receives when others don't;
    ``stream_spread``: how unequally weights come to SMs, a standard deviation over the mean. ``ahead_share``: the part
    of the ring that loaders fill while tasks wait: beyond that few copies are under way (`sm-pipeline`).
    ``weights_bytes_per_us``: how fast consumers work through weights that lie in shared memory. ``activation_us`` +
    bytes / ``activation_bytes_per_us``: activations to registers, each time; ``cached_share``: the part of bandwidth
    that a byte of them takes from weights, because it comes from the second-level cache. ``pass_us``: the end of a
    pass, its barrier and results; ``tile_us`` + rows * ``tile_row_us``: that of a 16-row tile. ``attention_us`` + bytes
    of keys and values / ``attention_bytes_per_us``: a split of attention. ``small_us`` + bytes /
    ``small_bytes_per_us``: any other task. ``prompt_attention_flops_per_us``: attention of many rows.
    """

    handoff_us: float = 0.514
    handoff_loaded_us: float = 0.491
    poll_us: float = 0.032
    signal_us: float = 0.192
    stream_efficiency: float = 1.0
    stream_bytes_per_us: float = 60e3
    stream_spread: float = 0.0495
    ahead_share: float = 0.323
    weights_bytes_per_us: float = 89.5e3
    activation_us: float = 0.0
    activation_bytes_per_us: float = 43.6e3
    cached_share: float = 0.133
    pass_us: float = 0.0
    tile_us: float = 0.38
    tile_row_us: float = 0.00623
    attention_us: float = 1.85
    attention_bytes_per_us: float = 36e3
    prompt_attention_flops_per_us: float = 0.9e6
    small_us: float = 0.935
    small_bytes_per_us: float = 40e3


@dataclass(frozen=True)
class Link:
    """How a GPU reaches the others of its host: ``bytes_per_us`` out of it, to all of them together, and as many into
    it; ``latency_us`` from a store to when a poll on the other side sees it."""

    name: str = "NVLink 4"
    bytes_per_us: float = 450e3
    latency_us: float = 1.0


@dataclass(frozen=True)
class Target:
    """One kind of machine: limits the plan must respect and costs the planner weighs.

    ``sources`` says for each figure that is not `MEASURED` where it comes from.
    """

    name: str
    arch: str
    num_sms: int
    shared_memory_bytes: int
    read_bandwidth_tb_s: float
    handoff_idle_us: float = 0.4
    handoff_loaded_us: float = 1.8
    task_overhead_us: float = 0.3
    costs: Costs = field(default_factory=Costs)
    link: Link = field(default_factory=Link)
    sources: Mapping[str, Source] = field(default_factory=dict[str, Source], hash=False)

    @property
    def sm_bytes_per_us(self) -> float:
        """The share of memory bandwidth one SM gets when all stream, bytes per microsecond."""
        return self.read_bandwidth_tb_s * 1e6 / self.num_sms

    @property
    def bytes_per_us(self) -> float:
        """The bandwidth of all memory."""
        return self.read_bandwidth_tb_s * 1e6

    @property
    def runs_kernel(self) -> bool:
        """Whether the persistent kernel's instructions exist there."""
        return architecture(self.arch) >= LEAST_ARCH

    def require_kernel(self) -> None:
        """Raise UnsupportedError for a target that can be planned for and reported on, but not compiled for."""
        if not self.runs_kernel:
            raise UnsupportedError(
                f"target '{self.name}': the kernel needs the bulk copies and mbarrier phases of sm_{LEAST_ARCH}, "
                f"found {self.arch}",
                advice="plans and reports are possible: `mpk compile --emit sm`, `mpk report`",
            )

    def source(self, figure: str) -> Source:
        """Where the field called ``figure`` comes from."""
        return self.sources.get(figure, Source.MEASURED)

    def figures(self) -> dict[str, float]:
        """The numeric fields by name."""
        numbers = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in numbers.items() if isinstance(value, int | float)}


def architecture(arch: str) -> int:
    """`sm_90a` -> 90. Raises UsageError for anything else."""
    digits = arch.removeprefix("sm_").rstrip("af")
    if not arch.startswith("sm_") or not digits.isdecimal():
        raise UsageError(f"found architecture '{arch}', expected one such as sm_90a")
    return int(digits)


def _all(source: Source, *figures: str) -> dict[str, Source]:
    return dict.fromkeys(figures, source)


KIB = 1024
_LIMITS = _all(Source.DATASHEET, "num_sms", "shared_memory_bytes") | _all(Source.LINK, "link")
_COSTS = ("handoff_idle_us", "handoff_loaded_us", "task_overhead_us", "costs")
_UNMEASURED = _LIMITS | _all(Source.DATASHEET, "read_bandwidth_tb_s") | _all(Source.TAKEN_OVER, *_COSTS)

H200 = Target("h200", "sm_90a", 132, 227 * KIB, 4.65, sources=_LIMITS)
H100 = Target("h100", "sm_90a", 132, 227 * KIB, 3.35, sources=_UNMEASURED)
A100 = Target("a100", "sm_80", 108, 163 * KIB, 2.039, sources=_UNMEASURED)
B200 = Target("b200", "sm_100a", 148, 227 * KIB, 8.0, sources=_UNMEASURED)
# Few, large tasks: on a CPU what costs is the number of numpy calls.
SIM = replace(
    Target("sim", "sm_90a", 4, 227 * KIB, 0.02),
    task_overhead_us=20.0,
    sources=_all(Source.CHOSEN, *_UNMEASURED),
)

TARGETS = {target.name: target for target in (H200, H100, A100, B200, SIM)}


def target_of(name: str) -> Target:
    """The target called ``name``, or of `h200/4` a quarter. Raises UsageError for any other."""
    whole, _, parts = name.partition("/")
    if whole not in TARGETS:
        raise UsageError(f"unknown target '{name}'", advice=did_you_mean(name, TARGETS))
    if not parts:
        return TARGETS[whole]
    if not parts.isdecimal():
        raise UsageError(f"unknown target '{name}'", advice=f"a part of {whole} is called such as {whole}/4")
    return part_of(TARGETS[whole], int(parts))


def part_of(target: Target, parts: int) -> Target:
    """One of ``parts`` equal shares of the SMs of ``target``, which has the bandwidth of as many.

    Raises UsageError if there are not that many SMs.
    """
    if parts == 1:
        return target
    if not 1 <= parts <= target.num_sms:
        raise UsageError(f"target '{target.name}' of {target.num_sms} SMs in {parts} parts")
    num_sms = target.num_sms // parts
    bandwidth = target.read_bandwidth_tb_s * num_sms / target.num_sms
    return replace(target, name=f"{target.name}/{parts}", num_sms=num_sms, read_bandwidth_tb_s=bandwidth)
