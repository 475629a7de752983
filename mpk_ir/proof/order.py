"""Which task is over when another one starts: events and queues as vector clocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from .plan import BoolArray, IntArray, Plan, rows_by
from .rejection import Rejection
from .telling import told_plan

Clock: TypeAlias = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True)
class Order:
    """``clock`` [tasks, queues]: how many tasks of each queue are sure to be over once a task's waits are (a vector
    clock in the manner of Mattern, 1989, with a component per queue). ``topological``: [tasks], an order that all
    events and queues allow."""

    plan: Plan
    topological: IntArray

    @staticmethod
    def of(plan: Plan) -> Order:
        """The order of ``plan``, whose counts are right. Raises Rejection with the cycle if there is none."""
        return Order(plan, topological_order(plan))

    @property
    def clock(self) -> Clock:
        return self._clocks[0]

    @property
    def event_clock(self) -> Clock:
        """[events, queues]: the same once an event has all its arrivals."""
        return self._clocks[1]

    @cached_property
    def _clocks(self) -> tuple[Clock, Clock]:
        return _clocks(self.plan, self.topological)

    @cached_property
    def strong(self) -> Order:
        """The order without polled events: what counters and queues alone give."""
        return self.only(~self.plan.event_polled)

    def only(self, events: BoolArray) -> Order:
        """The order that queues and ``events`` ([events]) alone give."""
        plan = self.plan
        if events.all():
            return self
        counted = replace(
            plan, waits=plan.waits[events[plan.waits[:, 1]]], signals=plan.signals[events[plan.signals[:, 1]]]
        )
        return Order(counted, self.topological)

    @cached_property
    def told(self) -> Order:
        """The order in which reading is done: counters, queues, and what polled data tells of who made it."""
        if not self.plan.event_polled.any():
            return self
        return Order(told_plan(self.plan), self.topological)

    def before(self, earlier: IntArray, later: IntArray) -> BoolArray:
        """Whether ``earlier[i]`` is over when the waits of ``later[i]`` are."""
        return self.clock[later, self.plan.queue[earlier]] > self.plan.position[earlier]

    def before_wait(self, earlier: IntArray, later: IntArray) -> BoolArray:
        """Whether ``earlier[i]`` is over when ``later[i]`` has not waited yet."""
        return self.start[later, self.plan.queue[earlier]] > self.plan.position[earlier]

    @cached_property
    def start(self) -> Clock:
        """[tasks, queues]: ``clock`` before a task waits, which is what the task before it in its queue knew."""
        plan = self.plan
        order = np.lexsort((plan.position, plan.queue))
        follows = plan.queue[order[1:]] == plan.queue[order[:-1]]
        tasks, previous = order[1:][follows], order[:-1][follows]
        start = np.zeros_like(self.clock)
        start[tasks] = self.clock[previous]
        start[tasks, plan.queue[tasks]] = plan.position[tasks]
        return start


def topological_order(plan: Plan) -> IntArray:
    """[tasks] in an order that events and queues allow. Raises Rejection, rule deadlock, if there is none.

    The ring of a loader adds no edge that could close a cycle (`proof.ring`).
    """
    num_tasks, num_events = plan.num_tasks, len(plan.event_count)
    by_position = np.argsort(plan.position, kind="stable")
    rows = rows_by(plan.queue[by_position], by_position, plan.num_queues)
    queues = [rows[number] for number in range(plan.num_queues)]
    waits_of, signals_of = plan.waits_of, plan.signals_of
    missing = np.bincount(plan.signals[:, 1], minlength=num_events).tolist()
    blocked: list[list[int]] = [[] for _ in range(num_events)]
    place, order, ready = [0] * len(queues), list[int](), list(range(len(queues)))
    while ready:
        number = ready.pop()
        queue = queues[number]
        while place[number] < len(queue):
            task = queue[place[number]]
            lacking = next((event for event in waits_of[task] if missing[event]), None)
            if lacking is not None:
                blocked[lacking].append(number)
                break
            place[number] += 1
            order.append(task)
            for event in signals_of[task]:
                missing[event] -= 1
                if not missing[event]:
                    ready += blocked[event]
                    blocked[event] = []
    if len(order) < num_tasks:
        raise _deadlock(plan, [queue[at] if at < len(queue) else -1 for queue, at in zip(queues, place, strict=True)])
    return np.array(order, np.int64)


def _deadlock(plan: Plan, heads: list[int]) -> Rejection:
    """``heads``: per queue the task that cannot start, -1 where the queue is done. Follow, from one, an event that it
    lacks to a task that should signal it, which is stuck behind the head of its own queue."""
    stuck = {head for head in heads if head >= 0}

    def waits_for(head: int) -> tuple[int, int]:
        for event in plan.waits_of[head]:
            for task in plan.signallers_of[event]:
                behind = heads[int(plan.queue[task])]
                if behind >= 0 and plan.position[task] >= plan.position[behind]:
                    return event, task
        raise AssertionError("the head of a queue that stopped waits for an event that lacks an arrival")

    path: list[int] = [min(stuck)]
    links: list[tuple[int, int]] = []
    while True:
        event, signaller = waits_for(path[-1])
        links.append((event, signaller))
        following = heads[int(plan.queue[signaller])]
        if following in path:
            begin = path.index(following)
            return _cycle(plan, path[begin:], links[begin:], len(stuck))
        path.append(following)


def _cycle(plan: Plan, heads: list[int], links: list[tuple[int, int]], num_stuck: int) -> Rejection:
    lines: list[str] = []
    for head, (event, signaller) in zip(heads, links, strict=True):
        behind = (
            "" if signaller in heads else f", queued behind {plan.task(heads[(heads.index(head) + 1) % len(heads)])}"
        )
        lines.append(f"{plan.task(head)} waits for {plan.event_names[event]} of {plan.task(signaller)}{behind}")
    return Rejection(
        "deadlock",
        f"{num_stuck} SMs wait for ever; " + "; ".join(lines),
        tasks=tuple(plan.task(head) for head in heads),
        events=tuple(plan.event_names[event] for event, _ in links),
        advice="an SM runs its tasks in program order: a task waits for one behind another waiting task",
    )


def _clocks(plan: Plan, topological: IntArray) -> tuple[Clock, Clock]:
    clock = np.zeros((plan.num_tasks, plan.num_queues), np.int32)
    running = np.zeros((plan.num_queues, plan.num_queues), np.int32)
    events = np.zeros((len(plan.event_count), plan.num_queues), np.int32)
    waits_of, signals_of = plan.waits_of, plan.signals_of
    queues, positions = plan.queue.tolist(), plan.position.tolist()
    for task in topological.tolist():
        queue = queues[task]
        mine = running[queue]
        for event in waits_of[task]:
            np.maximum(mine, events[event], out=mine)
        clock[task] = mine
        mine[queue] = positions[task] + 1
        for event in signals_of[task]:
            np.maximum(events[event], mine, out=events[event])
    return clock, events
