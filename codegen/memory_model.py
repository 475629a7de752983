"""Does the device code order memory as the proof assumes: store, barrier, release, acquire, barrier, load?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from ..proof import Rejection

_ATOM = re.compile(r"\b(\w+_(release|acquire|relaxed)_(gpu|sys))\(")
_ASM = re.compile(r'asm(?: volatile)?\(\s*"([^"]*)"')
_FUNCTION = re.compile(r"^[ \w:&*<>]*?\b(\w+)\([^;{}]*\)(?: const)? \{", re.MULTILINE)
_TAKE = re.compile(r"\bcontext\.acquire_(?:stages?|up_to)\b")
_EARLY = re.compile(r"static constexpr bool kEarly =([^;]*);")
_FREE = re.compile(
    r"parity = position\.phase \^ 1;\s*Patience patience;\s*"
    r"while \(!mbarrier_try_wait\(empty, parity\)\)(?s:.*)return true;"
)
_FILL = re.compile(r"\b(?:begin_stage|claim_stage|load_stage)\(")
SCOPES = ("gpu", "sys")
"""Of PTX: between the SMs of a rank, between ranks; a narrower one does not reach another SM."""
_NEEDED = (
    ("leave_task", "release", SCOPES),
    ("wait_event", "acquire", SCOPES),
    ("send_to_each", "relaxed", ("sys",)),
    ("send_to_all", "relaxed", ("sys",)),
    ("publish_at", "relaxed", ("gpu",)),
    ("load_polled", "relaxed", SCOPES),
)
"""Functions of the kernel, with the order and scopes of the atoms they cannot do without."""


def check_ordering(headers: Mapping[str, str]) -> None:
    """Every event orders memory between SMs. Raises Rejection, rule memory-model.

    An atom does what its name says: `add_release_gpu` is an instruction with `.release.gpu`. The last warp to leave a
    task adds its arrivals, which are releases, behind an `acq_rel` count of the warps: so the stores of the whole block
    are theirs. Waits are acquires, by some lanes of each warp, and stand before a barrier of the warp. The end of a
    step of several ranks is signalled and awaited at scope sys, and polled data moves between ranks at that scope;
    within a rank it is stored and loaded at scope gpu. What was multicast has another address where it is read: a fence
    between addresses stands before a rank says that a step is over. What the loader copies of a state it copies behind
    the acquire of the step before, and behind a fence between that and the copy engine; operands that tasks of the step
    write, behind a release of the consumers and its acquire, or behind the task's events, and such a fence. A stage of
    the ring is given back by an arrival whose address needs what was loaded from the stage: another could overtake the
    loads.
    """
    bodies = {name: dict(_functions(text)) for name, text in headers.items()}
    _check_atoms(list(_functions(headers.get("mpk/atoms.cuh", ""))))
    runtime = {name: body for part, found in bodies.items() if "/runtime/" in part for name, body in found.items()}
    for name, order, scopes in _NEEDED:
        for scope in scopes:
            if not _atoms(runtime.get(name, ""), order, scope):
                raise Rejection(
                    "memory-model", f"`{name}` of the kernel has no {order} at scope {scope}: nothing orders the tasks"
                )
    leave = runtime["leave_task"]
    before = leave[: min(_atoms(leave, "release", scope)[0] for scope in SCOPES)]
    if "__syncwarp()" not in before or "add_acquire_release_block(" not in before[before.index("__syncwarp()") :]:
        raise Rejection(
            "memory-model",
            "`leave_task` of the kernel does not gather the stores of its warp, then of all warps, before it signals",
        )
    if "fence_proxy_alias()" not in before:
        raise Rejection(
            "memory-model", "`leave_task` of the kernel does not order what was multicast before it signals"
        )
    wait = runtime.get("wait", "")
    if "wait_event(" in wait and "__syncwarp()" not in wait[wait.rindex("wait_event(") :]:
        raise Rejection("memory-model", "`wait` of the kernel has no barrier behind the events it waited for")
    for name in ("begin_load", "end_load"):
        if "load_polled(" not in runtime.get(name, ""):
            raise Rejection("memory-model", f"`{name}` of the kernel does not load as polled data is loaded")
    if "mbarrier_arrive(" not in (release := runtime.get("release_stages", "")) or "(used & zero())" not in release:
        raise Rejection("memory-model", "`release_stages` of the kernel may overtake the loads from what it gives back")
    step = runtime.get("wait_for_step", "")
    if "wait_event(kStepEvent" not in step or "fence_proxy_async_global(" not in step[step.index("wait_event(") :]:
        raise Rejection(
            "memory-model",
            "`wait_for_step` of the kernel does not put the end of the step, then a fence, before copies of a state",
        )
    _check_fetch(runtime)


def _check_fetch(runtime: Mapping[str, str]) -> None:
    """The loader reads what tasks of the step write behind all that orders the task for which it does."""
    fetch = runtime.get("begin_fetch", "")
    waits = max(fetch.rfind("wait_for_consumers("), fetch.rfind("wait_event("))
    ordered = "store_release_block(" in runtime.get("let_fetch", "")
    ordered &= "load_acquire_block(" in runtime.get("wait_for_consumers", "")
    if not ordered or min(fetch.find("wait_for_consumers("), fetch.find("wait_event(")) < 0:
        raise Rejection("memory-model", "`begin_fetch` of the kernel does not wait for what orders the task's operands")
    if "fence_proxy_async_global(" not in fetch[waits:]:
        raise Rejection(
            "memory-model", "`begin_fetch` of the kernel has no fence between its waits and the copy engine"
        )


def check_stages(headers: Mapping[str, str], state_streams: Iterable[str] = ()) -> None:
    """Stages of the ring are filled when they are free and what fills them is there, and taken stages are given back.
    Raises Rejection, rule ring. ``state_streams``: kinds of tasks that stream a state.

    In the bodies of tasks, the function that takes stages gives some back behind it. `Context::release_stages` gives
    back the oldest stages first, so the order of use is the order of release. The loader fills a stage behind a wait
    for the phase in which all warps have given it back, and what it streams of a state behind the end of the step
    before. A body takes weights before its x only where x stays whole from pass to pass: else those of the first
    segment would be multiplied by another.
    """
    for name, text in headers.items():
        for function, body in _functions(text) if name.startswith("mpk/tasks/") else ():
            taken = [match.start() for match in _TAKE.finditer(body)]
            if taken and "context.release_stages(" not in body[taken[-1] :]:
                raise Rejection("ring", f"`{function}` in {name} takes stages of the ring and gives none back")
        early = _EARLY.search(text)
        if early is not None and "kSegmentStages == kStages" not in early[1]:
            raise Rejection("ring", f"{name} takes weights before x is there, although x is not kept from pass to pass")
    begin = dict(_functions(headers.get("mpk/runtime/loader.cuh", ""))).get("claim_stage", "")
    if "empty[position.stage]" not in begin or not _FREE.search(begin):
        raise Rejection("ring", "`claim_stage` of the kernel does not wait until the stage that it fills is given back")
    for kind in sorted(set(state_streams)):
        load = dict(_functions(headers.get(f"mpk/tasks/{kind}.cuh", ""))).get("load", "")
        if "loader.wait_for_step()" not in _FILL.split(load)[0]:
            raise Rejection("ring", f"`load` of {kind} streams a state before the step that writes it is over")


def _atoms(body: str, order: str, scope: str) -> list[int]:
    """Where ``body`` calls an atom of ``order`` at ``scope``."""
    return [match.start() for match in _ATOM.finditer(body) if match[2] == order and match[3] == scope]


def orders_memory(headers: Mapping[str, str]) -> bool:
    """Whether `check_ordering` passes; a program without device code, as tests have, is taken to."""
    if "mpk/atoms.cuh" not in headers:
        return True
    try:
        check_ordering(headers)
    except Rejection:
        return False
    return True


def _check_atoms(atoms: list[tuple[str, str]]) -> None:
    both = " ".join(_ASM.findall(dict(atoms).get("add_acquire_release_block", "")))
    if ".acq_rel.cta" not in both:
        raise Rejection("memory-model", f"`add_acquire_release_block` is `{both}`, expected one with .acq_rel.cta")
    for name, body in atoms:
        named = _ATOM.match(f"{name}(")
        if named is None:
            continue
        instructions = " ".join(_ASM.findall(body))
        forwards = not instructions and f" {name}(" in body  # to an overload, which is looked at as well
        if not forwards and f".{named[2]}.{named[3]}" not in instructions:
            raise Rejection(
                "memory-model", f"`{name}` is `{instructions}`, expected an instruction with .{named[2]}.{named[3]}"
            )


def _functions(text: str) -> Iterator[tuple[str, str]]:
    """(name, body) of every function in C++ ``text``."""
    for match in _FUNCTION.finditer(text):
        depth, end = 1, match.end()
        while depth and end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        yield match[1], text[match.end() : end]
