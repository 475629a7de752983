"""Writes docs/reference/: the dialects and passes, from their definitions and docstrings."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

from xdsl.ir import Dialect, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import IRDLOperation, OpDef
from xdsl.passes import ModulePass

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from mpk_ir.pipeline_spec import option_name  # noqa: E402  # the checkout need not be installed
from mpk_ir.universe import MPK_UNIVERSE  # noqa: E402


def documentation(cls: type) -> str:
    """The docstring of ``cls`` itself, not of its base; nothing if it has none or a generated one."""
    text = vars(cls).get("__doc__") or ""
    return "" if text.startswith(f"{cls.__name__}(") else inspect.cleandoc(text)


def dialect_page(dialect: Dialect) -> str:
    """Ops, types and attributes of a dialect."""
    module = sys.modules[next(iter(dialect.operations)).__module__.rsplit(".", 1)[0]]
    lines = [f"# The `{dialect.name}` dialect", "", inspect.cleandoc(module.__doc__ or ""), "", "## Operations", ""]
    for op in sorted(dialect.operations, key=lambda op: op.name):
        if issubclass(op, IRDLOperation):
            lines += op_section(op)
    attributes = sorted(dialect.attributes, key=lambda attribute: attribute.name)
    if attributes:
        lines += ["## Types and attributes", ""]
    for attribute in attributes:
        mark = "!" if issubclass(attribute, TypeAttribute) else "#"
        lines += [f"### `{mark}{attribute.name}`", "", documentation(attribute), ""]
        if issubclass(attribute, ParametrizedAttribute):
            parameters = [f"`{name}`" for name, _ in attribute.get_irdl_definition().parameters]
            lines += [f"Parameters: {', '.join(parameters)}", ""] if parameters else []
    return "\n".join(lines)


def op_section(op: type[IRDLOperation]) -> Iterator[str]:
    """One op: its docstring, its syntax, what it takes and gives."""
    definition = op.get_irdl_definition()
    yield from (f"### `{op.name}`", "", documentation(op), "")
    if definition.assembly_format is not None:
        yield from ("Syntax:", "", "```text", f"{op.name} {definition.assembly_format}", "```", "")
    rows = list(_rows(definition))
    if rows:
        yield from ("| kind | name | may be absent |", "| --- | --- | --- |", *rows, "")
    traits = ", ".join(sorted(f"`{type(trait).__name__}`" for trait in definition.traits.traits))
    if traits:
        yield from (f"Traits: {traits}", "")


def _rows(definition: OpDef) -> Iterator[str]:
    for kind, members in (
        ("operand", definition.operands),
        ("result", definition.results),
        ("region", definition.regions),
        ("property", definition.properties.items()),
    ):
        for name, member in members:
            optional = "yes" if type(member).__name__.startswith(("Opt", "Var")) else ""
            yield f"| {kind} | `{name}` | {optional} |"


def passes_page(passes: Iterable[type[ModulePass]]) -> str:
    """All of our passes with their options."""
    lines = ["# Passes", "", "In the order of the pipeline; `mpk-opt --list-passes` prints the short form.", ""]
    for cls in passes:
        lines += [f"## `{cls.name}`", "", documentation(cls), ""]
        options = [field for field in fields(cls) if field.name != "name"]
        if options:
            lines += ["| option | type | default |", "| --- | --- | --- |"]
            lines += [f"| `{option_name(f.name)}` | {f.type} | `{str(f.default).lower()}` |" for f in options]
            lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Write one page for each dialect and one for all passes."""
    folder = DOCS / "reference"
    folder.mkdir(exist_ok=True)
    for name, factory in MPK_UNIVERSE.all_dialects.items():
        (folder / f"{name}.md").write_text(dialect_page(factory()))
    (folder / "passes.md").write_text(passes_page(factory() for factory in MPK_UNIVERSE.all_passes.values()))


if __name__ == "__main__":
    main()
