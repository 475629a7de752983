"""`make mutation`: how many unsafe plans the checker lets pass (none may), and how many safe ones it refuses.

Damages plans at random, in the IR and in the tables, lets a judge that shares no code with the checker say which are
unsafe, and compares. Prints a table; exit code 1 if an unsafe plan was accepted.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from xdsl.context import Context

from mpk_ir.codegen.program import Program
from mpk_ir.codegen.verify import verify_program
from mpk_ir.core.errors import VerificationError
from mpk_ir.passes.sm.verify import Verify
from mpk_ir.runtime.interleaving import Lagging
from mpk_ir.runtime.simulator import SimulatorOptions
from tests.sm.conftest import graph_of
from tests.sm.mutations import MUTATIONS
from tests.sm.oracle import NaivePlan

from .boxes import narrow_box, shift_box, widen_box
from .judge import adversaries, run, shown_wrong, why_unsafe
from .layouts import begin_inside_panels
from .subjects import Subject, decoders, random_subjects
from .tables import DAMAGES, swap_buffer
from .text import POLLED_WEAKENINGS, WEAKENINGS
from .variants import VARIANTS

NEW_MEANING = (shift_box, widen_box, narrow_box, swap_buffer, begin_inside_panels)
"""These may turn a plan into a safe one that computes something else."""
MAX_REFUSED = 0.05
"""Of safe variants."""


@dataclass
class Tally:
    """What became of the plans of one kind of change; ``accepted`` names unsafe ones that passed, ``refused`` the rule
    by which safe ones did not, ``shown`` counts unsafe ones that a run gave away, of ``tried``."""

    made: int = 0
    unsafe: int = 0
    accepted: list[str] = field(default_factory=list[str])
    refused: Counter[str] = field(default_factory=Counter[str])
    tried: int = 0
    shown: int = 0
    contradicted: list[str] = field(default_factory=list[str])

    @property
    def safe(self) -> int:
        return self.made - self.unsafe

    def note(self, unsafe: str | None, rejected: str | None, where: str) -> None:
        self.made += 1
        if unsafe is not None:
            self.unsafe += 1
            if rejected is None:
                self.accepted.append(f"{where}: {unsafe}")
        elif rejected is not None:
            self.refused[rejected] += 1


Score = dict[str, Tally]


def rule_of(check: Callable[[], object]) -> str | None:
    """The rule by which ``check`` rejects, None if it accepts."""
    try:
        check()
    except VerificationError as error:
        return str(getattr(error, "rule", error))
    return None


def damage_graph(subject: Subject, score: Score, generator: np.random.Generator) -> None:
    """Each kind of damage to the IR once."""
    for mutation in MUTATIONS:
        module = subject.module.clone()
        if mutation(graph_of(module), generator) is None:
            continue
        unsafe = NaivePlan(graph_of(module)).broken_rule()
        rejected = rule_of(lambda module=module: Verify().apply(Context(), module))
        score[f"IR: {mutation.__name__}"].note(unsafe, rejected, subject.name)


def damage_tables(subject: Subject, score: Score, generator: np.random.Generator, *, simulate: bool) -> None:
    """Each kind of damage to the tables once; with ``simulate`` random graphs are run as well."""
    expected = run(subject.program, subject.drawn, adversaries()[0]) if simulate and subject.drawn else None
    for damage in DAMAGES:
        program = damage(subject.program, generator)
        if program is None:
            continue
        tally = score[f"tables: {damage.__name__}"]
        unsafe, rejected = why_unsafe(program), rule_of(lambda program=program: verify_program(program))
        tally.note(unsafe, rejected, subject.name)
        if expected is not None and subject.drawn is not None and unsafe not in ("bounds", "incomplete"):
            wrong = shown_wrong(program, subject.drawn, expected)
            tally.tried += unsafe is not None
            tally.shown += wrong and unsafe is not None
            if wrong and unsafe is None and damage not in NEW_MEANING:
                tally.contradicted.append(f"{damage.__name__}, {subject.name}")


def weaken_text(subject: Subject, score: Score) -> None:
    """Each weakening of the memory model once: unsafe if a run in which events order nothing goes wrong; those of
    polled data if a decoder has any, which streams its caches as well."""
    if subject.drawn is None:
        for weakening in POLLED_WEAKENINGS if any(buffer.polled for buffer in subject.program.buffers) else ():
            program = weakening(subject.program)
            rejected = rule_of(lambda program=program: verify_program(program))
            score[f"text: {weakening.__name__}"].note("polled", rejected, subject.name)
        return
    options = SimulatorOptions(Lagging(), shared_arena=True, delayed_writes=True)
    expected = run(subject.program, subject.drawn, options)
    weak = run(subject.program, subject.drawn, options, ordered=False)
    assert expected is not None
    unsafe = None if weak is not None and np.array_equal(weak, expected) else "unordered"
    for weakening in WEAKENINGS:
        program = weakening(subject.program)
        rejected = rule_of(lambda program=program: verify_program(program))
        score[f"text: {weakening.__name__}"].note(unsafe, rejected, subject.name)


def vary(subject: Subject, score: Score, generator: np.random.Generator) -> None:
    """Each kind of safe variant once; what the judge calls unsafe counts as a mutant."""
    for variant in VARIANTS:
        program: Program | None = variant(subject.program, generator)
        if program is not None:
            rejected = rule_of(lambda program=program: verify_program(program))
            score[f"variant: {variant.__name__}"].note(why_unsafe(program), rejected, subject.name)


def measure(subjects: Sequence[Subject], unsafe: int, seed: int, *, simulate_every: int) -> Score:
    """Damage ``subjects`` in turn until there are ``unsafe`` unsafe plans; some rounds are simulated too."""
    score: Score = defaultdict(Tally)
    generator, rounds = np.random.default_rng(seed), 0
    for subject in subjects:
        weaken_text(subject, score)
    while sum(tally.unsafe for tally in score.values()) < unsafe:
        subject = subjects[rounds % len(subjects)]
        damage_graph(subject, score, generator)
        damage_tables(subject, score, generator, simulate=rounds % simulate_every == 0)
        vary(subject, score, generator)
        rounds += 1
    return score


def totals(score: Score) -> tuple[Tally, int, int]:
    """(all, safe variants, safe variants refused)."""
    whole = Tally()
    for tally in score.values():
        whole.made += tally.made
        whole.unsafe += tally.unsafe
        whole.accepted += tally.accepted
        whole.contradicted += tally.contradicted
        whole.tried += tally.tried
        whole.shown += tally.shown
    variants = [tally for name, tally in score.items() if name.startswith("variant")]
    return whole, sum(t.safe for t in variants), sum(t.refused.total() for t in variants)


def table(score: Score) -> str:
    """The score as text."""
    lines = [f"{'change':42}{'plans':>7}{'unsafe':>8}{'accepted':>10}{'safe':>7}{'refused':>9}  refused by"]
    for name in sorted(score):
        tally = score[name]
        rules = ", ".join(f"{rule} {count}" for rule, count in tally.refused.most_common())
        counts = f"{tally.made:7}{tally.unsafe:8}{len(tally.accepted):10}{tally.safe:7}{tally.refused.total():9}"
        lines.append(f"{name:42}{counts}  {rules}")
    whole, safe, refused = totals(score)
    share = refused / safe if safe else 0.0
    lines += [
        "",
        f"{whole.unsafe} unsafe plans of {len(score)} kinds, {len(whole.accepted)} accepted",
        f"{whole.shown} of {whole.tried} unsafe plans that were run went wrong in a run; "
        f"{len(whole.contradicted)} plans went wrong that the judge calls safe",
        f"{safe} safe variants, {refused} refused ({share:.1%})",
    ]
    return "\n".join([*lines, *whole.accepted, *whole.contradicted])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the score. 0 if no unsafe plan was accepted and at most 5 % of the safe variants were refused."""
    parser = argparse.ArgumentParser(prog="make mutation", description=__doc__)
    parser.add_argument("--unsafe", type=int, default=5000, help="unsafe plans to make (5000)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    begin = perf_counter()
    subjects = [*decoders(large=True), *random_subjects(60, given.seed)]
    score = measure(subjects, given.unsafe, given.seed, simulate_every=3)
    print(table(score))
    print(f"{len(subjects)} plans damaged; {perf_counter() - begin:.0f} s")
    whole, safe, refused = totals(score)
    return int(bool(whole.accepted or whole.contradicted) or refused > MAX_REFUSED * safe)


if __name__ == "__main__":
    sys.exit(main())
