"""Faults at the ports as data, and the plan that says when one is played."""

from __future__ import annotations

import itertools
import random

import msgspec
import pytest

from shared_libs.atomic.errors import MisuseError
from shared_libs.testing import FaultPlan, PortFault
from shared_libs.testing.scenarios.port_faults import KINDS

MODEL, TOOL = ("model", "openai/gpt"), ("tool", "sql")


def played(plan, *calls):
    return [fault and fault.fault for fault in (plan.next(*call) for call in calls)]


def test_a_fault_is_met_at_the_calls_it_names():
    def met(attempts):
        plan = FaultPlan([PortFault(on="model", fault="cut", attempts=attempts)])
        return [number for number in range(1, 6) if plan.next(*MODEL)]

    assert met((1, 3)) == [1, 3]
    assert met("from 4") == [4, 5]
    assert met("every") == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("on", "call", "meets"),
    [
        ("model", MODEL, True),
        ("model openai/gpt", MODEL, True),
        ("model gpt", MODEL, True),
        ("model gp", MODEL, False),
        ("tool", MODEL, False),
        ("tool sql", TOOL, True),
        ("tool", TOOL, True),
        ("tool http", TOOL, False),
        ("memory load", ("memory", "load"), True),
        ("memory load", ("memory", "store"), False),
    ],
)
def test_a_fault_is_met_by_whom_it_names(on, call, meets):
    fault = {"model": "cut", "tool": "hang", "memory": "hang"}[on.split()[0]]
    assert bool(FaultPlan([PortFault(on=on, fault=fault)]).next(*call)) is meets


def test_each_name_counts_its_own_calls_and_the_first_fault_wins():
    plan = FaultPlan(
        [PortFault(on="model", fault="cut", attempts=(2,)), PortFault(on="model gpt", fault="stall", attempts="from 2")]
    )
    other = ("model", "anthropic/claude")
    assert played(plan, MODEL, other, MODEL, MODEL, other) == [None, None, "cut", "stall", "cut"]
    assert [(met.name, met.number) for met in plan.played] == [("openai/gpt", 2), ("openai/gpt", 3), (other[1], 2)]
    assert plan.calls(*MODEL) == 3


def test_chance_comes_from_the_seed_and_from_no_order_of_calls():
    faults = [PortFault(on="model", fault="cut", probability=0.4), PortFault(on="tool", fault="hang", probability=0.4)]

    def schedule(seed, shuffle):
        plan, calls = FaultPlan(faults, seed), [MODEL] * 40 + [TOOL] * 40
        random.Random(shuffle).shuffle(calls)
        for call in calls:
            plan.next(*call)
        return sorted((met.port, met.number) for met in plan.played)

    assert schedule(7, 1) == schedule(7, 2)
    assert schedule(7, 1) != schedule(8, 1)
    assert 20 < len(schedule(7, 1)) < 45


def test_a_fault_that_was_certain_and_met_no_call_is_told():
    late = PortFault(on="model", fault="cut", attempts=(9,))
    plan = FaultPlan([late, PortFault(on="tool", fault="hang", probability=0.01)])
    plan.next(*MODEL)
    assert plan.unplayed() == [late]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"on": "modle", "fault": "cut"}, "there is no port 'modle'.*did you mean 'model'"),
        ({"on": "memory laod", "fault": "hang"}, "a memory has no 'laod'.*did you mean 'load'"),
        ({"on": "tool", "fault": "cut"}, "a tool has no fault 'cut'"),
        ({"on": "model", "fault": "cut", "delay_s": 1}, "cut has no such parameter; allowed: after_tokens"),
        ({"on": "model", "fault": "cut", "attempts": "some"}, "'some' is no set of calls"),
        ({"on": "model", "fault": "cut", "attempts": (0,)}, "counted from 1"),
        ({"on": "model", "fault": "cut", "attempts": ()}, "counted from 1"),
        ({"on": "model", "fault": "cut", "probability": 1.5}, "probability: 1.5"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(given, says):
    with pytest.raises(MisuseError, match=says):
        PortFault(**given)


def test_a_fault_is_data_and_reads_back():
    faults = [
        PortFault(on="model a/b", fault="rate_limited", retry_after_s=7, attempts=(1, 2)),
        PortFault(on="tool", fault="hang", attempts="from 2", probability=0.5),
    ]
    assert msgspec.json.decode(msgspec.json.encode(faults), type=list[PortFault]) == faults
    assert str(faults[0]) == "rate_limited on model a/b ([1, 2]) retry_after_s=7"


def test_every_parameter_of_the_catalogue_is_a_field():
    named = set(itertools.chain.from_iterable(names for kinds in KINDS.values() for names in kinds.values()))
    assert named <= set(PortFault.__struct_fields__)
