"""Pipelines as text: `tile{target=h200},sm-schedule` or `builtin.module(...)` around it, to passes."""

from __future__ import annotations

import re
from dataclasses import fields

from xdsl.passes import ModulePass
from xdsl.utils import arg_spec
from xdsl.utils.exceptions import ArgSpecParseError

from .core.errors import UsageError, did_you_mean
from .universe import multiverse

_ANCHORED = re.compile(r"\s*builtin\.module\s*\((?P<inner>.*)\)\s*", re.DOTALL)
_NESTED = re.compile(r"^\s*(?P<anchor>[\w.-]+)\s*\(")
_QUOTED_OR_BRACKETED = re.compile(r'("(?:\\.|[^"\\])*"|\[[^\]]*\])')


def parse_pipeline(text: str) -> tuple[ModulePass, ...]:
    """The passes that ``text`` names, with their options, in order.

    Raises UsageError on a syntax error, an unknown pass or option, and an option value of the wrong type.
    """
    flat = _normalize(text)
    try:
        specs = tuple(arg_spec.parse_pipeline(flat))
    except ArgSpecParseError as error:  # not an Exception, on purpose of xDSL's
        raise UsageError(str(error), where="pass pipeline") from None
    return tuple(_instantiate(spec) for spec in specs)


def pipeline_text(passes: tuple[ModulePass, ...]) -> str:
    """``passes`` as text that `parse_pipeline` reads back; options at their defaults are left out."""
    return ",".join(str(pass_.spec()) for pass_ in passes)


def pass_class(name: str) -> type[ModulePass]:
    """The pass called ``name``, imported. Raises UsageError for any other name."""
    known = multiverse().all_passes
    if name not in known:
        raise UsageError(f"unknown pass '{name}'", advice=did_you_mean(name, known))
    return known[name]()


def option_name(field_name: str) -> str:
    """A pass's field as its option is spelt: `max_waits` is `max-waits`."""
    return field_name.replace("_", "-")


def _normalize(text: str) -> str:
    """Unwrap `builtin.module(...)`; drop white space except between the options of a pass."""
    while match := _ANCHORED.fullmatch(text):
        text = match["inner"]
    if match := _NESTED.match(text):
        raise UsageError(
            f"pipeline nested on '{match['anchor']}': passes run on the whole module",
            advice="write the passes without `" + match["anchor"] + "(...)`",
        )
    parts = _QUOTED_OR_BRACKETED.split(text)
    parts[::2] = (re.sub(r"\s*([,={}])\s*", r"\1", re.sub(r"\s+", " ", part)) for part in parts[::2])
    return "".join(parts).strip()


def _instantiate(spec: arg_spec.ArgSpec) -> ModulePass:
    cls = pass_class(spec.name)
    options = {field.name: field for field in fields(cls) if field.init and field.name != "name"}
    for given in spec.normalize_parameter_names().parameters:
        if given not in options:
            known = [option_name(name) for name in options]
            advice = did_you_mean(option_name(given), known) if known else f"'{spec.name}' has no options"
            raise UsageError(f"pass '{spec.name}': unknown option '{option_name(given)}'", advice=advice)
    try:
        return cls.from_spec(spec)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"pass '{spec.name}': {error}", advice=_usage(cls)) from error


def _usage(cls: type[ModulePass]) -> str:
    infos = ", ".join(f"{option_name(field.name)}: {field.type}" for field in fields(cls))
    return f"options of '{cls.name}': {infos}"
