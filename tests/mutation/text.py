"""Ways to weaken the order of memory in the device code that a program carries."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from mpk_ir.codegen.program import Program

Weakening = Callable[[Program], Program]
ATOMS, KERNEL = "mpk/atoms.cuh", "mpk/runtime/kernel.cuh"
CONTEXT, LOADER = "mpk/runtime/context.cuh", "mpk/runtime/loader.cuh"
LINEAR, ATTENTION = "mpk/tasks/linear.cuh", "mpk/tasks/attention.cuh"


def _edit(program: Program, name: str, pattern: str, text: str) -> Program:
    found, count = re.subn(pattern, text, program.headers[name])
    assert count, f"{name} has no {pattern}"
    return replace(program, headers={**program.headers, name: found})


def relax_release(program: Program) -> Program:
    """An arrival orders nothing."""
    return _edit(program, ATOMS, r"red\.release\.gpu", "red.relaxed.gpu")


def narrow_release(program: Program) -> Program:
    """An arrival orders the block's own view only."""
    return _edit(program, ATOMS, r"red\.release\.gpu", "red.release.cta")


def relax_acquire(program: Program) -> Program:
    """A wait orders nothing."""
    return _edit(program, ATOMS, r"ld\.acquire\.gpu", "ld.relaxed.gpu")


def narrow_acquire(program: Program) -> Program:
    """A wait orders the block's own view only."""
    return _edit(program, ATOMS, r"ld\.acquire\.gpu", "ld.acquire.cta")


def poll_without_acquire(program: Program) -> Program:
    """The wait calls another atom."""
    return _edit(program, CONTEXT, r"load_acquire_gpu\(counter\)", "load_relaxed_gpu(counter)")


def drop_barrier_before_signal(program: Program) -> Program:
    """The signalling lane has not observed the stores of the other lanes."""
    return _edit(program, KERNEL, r"(void leave_task\((?s:.*?))__syncwarp\(\);", r"\1")


def relax_count_of_warps(program: Program) -> Program:
    """The signalling warp has not observed the stores of the other warps."""
    return _edit(program, ATOMS, r"atom\.acq_rel\.cta", "atom.relaxed.cta")


def drop_barrier_after_wait(program: Program) -> Program:
    """The other lanes do not observe what the polling ones acquired."""
    return _edit(program, CONTEXT, r"(void wait\((?s:.*?))__syncwarp\(\);", r"\1")


def narrow_polled_load(program: Program) -> Program:
    """A reader of polled words may see its SM's old copies for ever."""
    return _edit(program, ATOMS, r"ld\.relaxed\.gpu\.global\.v4", "ld.relaxed.cta.global.v4")


def narrow_polled_store(program: Program) -> Program:
    """Polled words may stay where only their SM sees them."""
    return _edit(program, ATOMS, r"st\.relaxed\.gpu\.global\.u32", "st.relaxed.cta.global.u32")


def publish_by_plain_stores(program: Program) -> Program:
    """Polled words are stored as any other data."""
    return _edit(program, CONTEXT, r"store_relaxed_gpu\(", "store_plain(")


def copy_state_without_fence(program: Program) -> Program:
    """The copy engine may read a state as it was before tasks of the last step wrote it."""
    return _edit(program, LOADER, r"fence_proxy_async_global\(\);", "")


def give_stages_back_early(program: Program) -> Program:
    """The loader may overwrite a stage that warps are still reading."""
    return _edit(program, CONTEXT, r" \+ \(used & zero\(\)\)", "")


def keep_stages(program: Program) -> Program:
    """Products never give the stages of their weights back: the ring stops when it has gone round once."""
    return _edit(program, LINEAR, r"context\.release_stages\(used, kGroupStages\);", "")


def fill_stages_in_use(program: Program) -> Program:
    """The loader fills the next stage without a look at whether it was given back."""
    return _edit(program, LOADER, r"while \(!mbarrier_try_wait\(empty, parity\)\)", "while (false)")


def fill_stages_a_round_early(program: Program) -> Program:
    """The loader waits for a stage's former round only."""
    return _edit(program, LOADER, r"parity = position\.phase \^ 1;", "parity = position.phase;")


def stream_state_within_the_step(program: Program) -> Program:
    """Loaders copy caches that tasks of the step before may still be writing."""
    return _edit(program, ATTENTION, r"loader\.wait_for_step\(\);", "")


def take_weights_before_any_segment(program: Program) -> Program:
    """Weights are taken before x also where they belong to one segment of it."""
    return _edit(program, LINEAR, r"kEarly = kSegmentStages == kStages && ", "kEarly = ")


POLLED_WEAKENINGS: tuple[Weakening, ...] = (
    narrow_polled_load,
    narrow_polled_store,
    publish_by_plain_stores,
    copy_state_without_fence,
    give_stages_back_early,
    keep_stages,
    fill_stages_in_use,
    fill_stages_a_round_early,
    stream_state_within_the_step,
    take_weights_before_any_segment,
)
"""Unsafe for decoders, whose polled data has readers on other SMs and whose weights and caches are streamed."""

WEAKENINGS: tuple[Weakening, ...] = (
    relax_release,
    narrow_release,
    relax_acquire,
    narrow_acquire,
    poll_without_acquire,
    drop_barrier_before_signal,
    relax_count_of_warps,
    drop_barrier_after_wait,
)
