"""Tables that `mpk-opt` prints: passes, dialects, timing, statistics."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, Field, fields
from typing import Any

from xdsl.ir import Dialect
from xdsl.passes import ModulePass
from xdsl.universe import XDSL_UNIVERSE
from xdsl.utils.hints import type_repr

from ..pass_manager import RunReport
from ..pipeline_spec import option_name
from ..universe import MPK_UNIVERSE, multiverse

RULE = "===" + "-" * 73 + "==="


def list_passes() -> str:
    """Every pass with the first line of its documentation and its options; ours and extensions' before xDSL's."""
    known = multiverse().all_passes
    lines: list[str] = []
    for name in sorted(known, key=lambda name: (name in XDSL_UNIVERSE.all_passes, name)):
        lines += _pass_lines(known[name]())
    return "\n".join(lines) + "\n"


def _pass_lines(cls: type[ModulePass]) -> list[str]:
    options = [field for field in fields(cls) if field.init and field.name != "name"]
    return [f"  --{cls.name:<34} - {_summary(cls)}", *(_option_line(option) for option in options)]


def _option_line(option: Field[Any]) -> str:
    kind = option.type if isinstance(option.type, str) else type_repr(option.type)
    default = option.default if option.default_factory is MISSING else option.default_factory()
    shown = (
        "" if default is MISSING else f" (default: {str(default).lower() if isinstance(default, bool) else default})"
    )
    return f"    --{option_name(option.name):<32} - {kind}{shown}"


def _summary(cls: type[ModulePass]) -> str:
    own = cls.__doc__ if cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}(") else None
    text = inspect.cleandoc(own or "").split("\n\n")[0]
    return " ".join(text.split())


def list_dialects() -> str:
    """The names of all dialects; for ours, how many ops, types and attributes they have."""
    known = multiverse().all_dialects
    own = [f"  {name:<20} - {_contents(factory())}" for name, factory in sorted(MPK_UNIVERSE.all_dialects.items())]
    others = sorted(set(known) - set(MPK_UNIVERSE.all_dialects))
    return "\n".join(["Available dialects:", *own, *(f"  {name}" for name in others)]) + "\n"


def _contents(dialect: Dialect) -> str:
    return f"{len(list(dialect.operations))} ops, {len(list(dialect.attributes))} types and attributes"


def timing(report: RunReport, parse_seconds: float, output_seconds: float) -> str:
    """Wall time of parsing, each pass, each check and the output, in the form MLIR prints it."""
    rows = [("Parser", parse_seconds), ("(V) input", report.initial_verify_seconds)]
    for one in report.passes:
        rows += [(one.name, one.seconds), (f"(V) after {one.name}", one.verify_seconds)]
    rows.append(("Output", output_seconds))
    total = sum(seconds for _, seconds in rows)
    rows.append(("Total", total))
    lines = [f"  {seconds:8.4f} ({100 * seconds / max(total, 1e-9):5.1f}%)  {name}" for name, seconds in rows]
    title = "... Execution time report ...".center(len(RULE)).rstrip()
    head = [RULE, title, RULE, f"  Total Execution Time: {total:.4f} seconds", "", "  ----Wall Time----  ----Name----"]
    return "\n".join([*head, *lines]) + "\n"


def statistics(report: RunReport) -> str:
    """What the passes counted, in the form MLIR prints it."""
    lines = [RULE, "... Pass statistics report ...".center(len(RULE)).rstrip(), RULE]
    for one in report.passes:
        lines.append(f"'{one.name}'")
        lines += [f"  (S) {value:>10} {name}" for name, value in one.statistics.items()]
    return "\n".join(lines) + "\n"
