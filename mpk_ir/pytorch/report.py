"""What torch.compile(backend="mpk") did: regions, what broke them, and why anything compiled again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .partition import Break

MOST_REPORTS = 256


@dataclass
class RegionReport:
    """One region: its tasks' grids in each kernel compiled for it, and what each was compiled for."""

    name: str
    ops: int
    grids: list[int] = field(default_factory=list[int])
    reasons: list[str] = field(default_factory=list[str])
    fallback_is_error: bool = False
    fallback: str | None = None
    """Why PyTorch runs it after all."""

    @property
    def recompilations(self) -> int:
        """Kernels beyond the first."""
        return max(0, len(self.grids) - 1)


@dataclass
class GraphReport:
    """One graph that dynamo handed over. ``recompile_of_frame``: how many times its Python frame compiled before;
    ``ended_by``: what of Python follows it that dynamo cannot trace."""

    compile_id: str
    recompile_of_frame: int
    regions: list[RegionReport] = field(default_factory=list[RegionReport])
    breaks: list[Break] = field(default_factory=list[Break])
    training: bool = False
    ended_by: Break | None = None

    def __str__(self) -> str:
        kernels = sum(1 for region in self.regions if region.fallback is None)
        lines = [f"graph {self.compile_id}: {kernels} regions compiled, {len(self.breaks)} ops left to PyTorch"]
        if self.training:
            lines.append("  it needs gradients: PyTorch runs all of it")
        if self.recompile_of_frame:
            lines.append(f"  its Python function compiled {self.recompile_of_frame} times before: {self.why_again()}")
        for region in self.regions:
            if region.fallback is not None:
                lines.append(f"  {region.name}: {region.ops} ops left to PyTorch: {region.fallback}")
                continue
            grids = ", ".join(map(str, region.grids)) or "not called yet"
            lines.append(f"  {region.name}: {region.ops} ops, grids: {grids}")
            lines += [f"    compiled again: {reason}" for reason in region.reasons[1:]]
        for text, count in Counter(map(str, self.breaks)).items():
            lines.append(f"  {text}{f' ({count} times)' if count > 1 else ''}")
        if self.ended_by is not None:
            lines.append(f"  ends before its function does: {self.ended_by} (TORCH_LOGS=graph_breaks tells more)")
        return "\n".join(lines)

    def why_again(self) -> str:
        """The guard that failed, as dynamo recorded it."""
        from torch._dynamo.utils import get_compilation_metrics

        for metrics in reversed(get_compilation_metrics()):  # ids begin anew after torch._dynamo.reset()
            reason = getattr(metrics, "recompile_reason", None)
            if str(metrics.compile_id) == self.compile_id and reason:
                return str(reason).strip()
        return "a guard failed (TORCH_LOGS=recompiles says which)"


@dataclass
class Reports:
    """The latest graphs, oldest first."""

    graphs: list[GraphReport] = field(default_factory=list[GraphReport])

    def add(self, report: GraphReport) -> None:
        self.graphs.append(report)
        del self.graphs[:-MOST_REPORTS]

    def clear(self) -> None:
        self.graphs.clear()

    @property
    def recompilations(self) -> int:
        """Of Python frames by dynamo, and of regions for other shapes."""
        again = sum(1 for graph in self.graphs if graph.recompile_of_frame)
        return again + sum(region.recompilations for graph in self.graphs for region in graph.regions)

    def __str__(self) -> str:
        return "\n".join(map(str, self.graphs)) or "torch.compile(backend='mpk') has compiled nothing yet"


REPORTS = Reports()
"""Of this process."""
