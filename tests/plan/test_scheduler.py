"""The scheduler: examples by name, then random histories against the invariants."""

from __future__ import annotations

import math

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llamamgr.plan.events import (
    HOST,
    AwaitMemory,
    BudgetMeasured,
    ChildBecameReady,
    ChildExited,
    ChildKey,
    ChildLost,
    GrantLease,
    KeepAliveChanged,
    KeySuperseded,
    Left,
    Limits,
    MemoryFreed,
    Placement,
    RefuseRequest,
    Requested,
    StartChild,
    StopChild,
    TimePassed,
    TtlChanged,
    UnloadForced,
)
from llamamgr.plan.scheduler import Scheduler as Plan
from llamamgr.plan.state import Room

TTL = 5.0


def Scheduler(memory: int, limits: Limits | None = None) -> Plan:
    return Plan({HOST: memory}, limits)


def on(need: int) -> Placement:
    return Placement({HOST: need})


def asks(
    request: int,
    model: str = "a",
    need: int = 10,
    slots: int = 2,
    keep: float = 300.0,
    context: int = 0,
    **more: object,
) -> Requested:
    key = ChildKey(model, "b1", "", context)
    start = ChildKey(model, "b1", "", max(context, 1000))
    return Requested(request, key, (on(need),), slots, keep, start, **more)  # type: ignore[arg-type]


def loaded(plan: Scheduler, model: str, now: float, request: int, **kw: float) -> str:
    """A ready, idle child of ``model``."""
    [start] = [c for c in plan.handle(asks(request, model, **kw), now) if isinstance(c, StartChild)]
    plan.handle(ChildBecameReady(start.child), now)
    plan.handle(Left(request), now)
    return start.child


def test_the_first_request_starts_a_child_and_is_granted_when_it_is_ready():
    plan = Scheduler(100)
    assert plan.handle(asks(1), 0) == [StartChild("c1", ChildKey("a", "b1", "", 1000), 1, on(10))]
    assert plan.handle(asks(2), 0) == []
    assert plan.handle(ChildBecameReady("c1"), 1) == [GrantLease(1, "c1"), GrantLease(2, "c1")]


def test_leases_beyond_the_slots_wait_for_one_to_be_free():
    plan = Scheduler(100)
    plan.handle(asks(1), 0)
    plan.handle(ChildBecameReady("c1"), 0)
    plan.handle(asks(2), 0)
    assert plan.handle(asks(3), 0) == []
    assert plan.handle(Left(1), 1) == [GrantLease(3, "c1")]


def test_the_least_recently_used_idle_child_makes_room_and_the_start_waits_for_its_exit():
    plan = Scheduler(20)
    old, young = loaded(plan, "a", 0, 1), loaded(plan, "b", 1, 2)
    assert plan.handle(asks(3, "c"), 2) == [StopChild(old, "another model needs its memory")]
    assert plan.handle(ChildExited(old, "asked to"), 3) == [
        StartChild("c3", ChildKey("c", "b1", "", 1000), 3, on(10))
    ]
    assert plan.children[young].state == "ready"


def test_a_busy_child_is_never_a_victim():
    plan = Scheduler(10)
    plan.handle(asks(1, "a"), 0)
    plan.handle(ChildBecameReady("c1"), 0)
    assert plan.handle(asks(2, "b"), 1) == []
    assert plan.handle(Left(1), 2) == [StopChild("c1", "another model needs its memory")]


def test_after_its_patience_a_waiting_model_closes_the_warm_one_to_younger_requests():
    plan = Scheduler(10, Limits(patience=10))
    plan.handle(asks(1, "a"), 0)
    plan.handle(ChildBecameReady("c1"), 0)
    plan.handle(asks(2, "b"), 1)
    assert plan.handle(asks(3, "a"), 5) == [GrantLease(3, "c1")]
    plan.handle(TimePassed(), 11)
    plan.handle(Left(3), 12)
    assert plan.handle(asks(4, "a"), 12) == []
    assert plan.handle(Left(1), 13) == [StopChild("c1", "another model needs its memory")]
    assert plan.handle(ChildExited("c1", ""), 14)[0].request == 2


def test_an_abandoned_load_stays_warm_for_its_keep_alive():
    plan = Scheduler(100)
    plan.handle(asks(1, keep=60), 0)
    plan.handle(Left(1), 1)
    assert plan.handle(ChildBecameReady("c1"), 5) == []
    assert plan.deadline() == 65
    assert plan.handle(TimePassed(), 65) == [StopChild("c1", "its keep-alive ran out")]


def test_a_failed_load_refuses_its_waiters_with_the_cause_and_the_second_one_starts_a_cooldown():
    plan = Scheduler(100)
    plan.handle(asks(1), 0)
    assert plan.handle(ChildExited("c1", "bad magic"), 1) == [RefuseRequest(1, "load_failed", "bad magic")]
    plan.handle(asks(2), 1)
    plan.handle(ChildExited("c2", "bad magic"), 1)
    [refused] = plan.handle(asks(3), 2)
    assert (refused.why, refused.detail, refused.retry_after) == ("cooling_down", "bad magic", 1)
    assert isinstance(plan.handle(asks(4), 4)[0], StartChild)


def test_one_crash_costs_nothing_but_a_crash_loop_opens_the_breaker():
    plan = Scheduler(100, Limits(crashes_allowed=2))
    for number in range(1, 4):
        assert isinstance(plan.handle(asks(number), number)[0], StartChild)
        plan.handle(ChildBecameReady(f"c{number}"), number)
        plan.handle(ChildExited(f"c{number}", "SIGSEGV"), number)
    assert plan.handle(asks(9), 3)[0].why == "cooling_down"


def test_unloading_stops_an_idle_child_now_and_a_busy_one_after_its_last_lease():
    plan = Scheduler(100)
    idle = loaded(plan, "a", 0, 1)
    plan.handle(asks(2, "b"), 0)
    plan.handle(ChildBecameReady("c2"), 0)
    assert plan.handle(KeepAliveChanged("a", 0), 1) == [StopChild(idle, "somebody wants it gone")]
    assert plan.handle(KeepAliveChanged("b", 0), 1) == []
    assert plan.handle(Left(2), 2) == [StopChild("c2", "somebody wants it gone")]


def test_a_request_after_an_unloading_brings_its_own_keep_alive():
    plan = Scheduler(100)
    plan.handle(asks(1, "a"), 0)
    plan.handle(ChildBecameReady("c1"), 0)
    plan.handle(KeepAliveChanged("a", 0), 1)
    plan.handle(asks(2, "a", keep=60), 2)
    plan.handle(Left(1), 3)
    plan.handle(Left(2), 4)
    assert plan.handle(TimePassed(), 64) == [StopChild("c1", "its keep-alive ran out")]


def test_a_negative_keep_alive_never_expires():
    plan = Scheduler(100)
    loaded(plan, "a", 0, 1, keep=math.inf)
    assert plan.handle(TimePassed(), 1e9) == []


def test_a_ttl_is_stronger_than_a_keep_alive_for_ever():
    plan = Scheduler(100)
    child = loaded(plan, "a", 0, 1, keep=math.inf, ttl=30.0)
    assert plan.deadline() == 30
    assert plan.handle(TimePassed(), 29) == []
    assert plan.handle(TimePassed(), 30) == [StopChild(child, "its ttl ran out")]


def test_a_ttl_counts_idle_seconds_and_a_shorter_keep_alive_comes_first():
    plan = Scheduler(100)
    child = loaded(plan, "a", 0, 1, keep=5.0, ttl=30.0)
    plan.handle(asks(2, "a", keep=math.inf, ttl=30.0), 4)
    assert plan.handle(TimePassed(), 100) == []  # a busy child is never a victim
    plan.handle(Left(2), 100)
    assert plan.handle(TimePassed(), 129) == []
    plan.handle(asks(3, "a", keep=5.0, ttl=30.0), 129)
    plan.handle(Left(3), 129)
    assert plan.handle(TimePassed(), 134) == [StopChild(child, "its keep-alive ran out")]


def test_a_ttl_that_changes_holds_for_what_is_idle_already():
    plan = Scheduler(100)
    child = loaded(plan, "a", 0, 1, keep=math.inf)
    plan.handle(TtlChanged(child, 10.0), 5)
    assert plan.deadline() == 10
    assert plan.handle(TtlChanged(child, 3.0), 6) == [StopChild(child, "its ttl ran out")]


def test_no_keep_alive_set_later_outlasts_a_ttl():
    plan = Scheduler(100)
    loaded(plan, "a", 0, 1, keep=5.0, ttl=30.0)
    plan.handle(KeepAliveChanged("a", math.inf), 1)
    assert plan.deadline() == 31


def test_what_can_never_fit_is_refused_at_once():
    assert Scheduler(5).handle(asks(1), 0)[0].why == "too_big"


def test_what_does_not_fit_is_told_in_units_for_people():
    [refused] = Scheduler(1_500_000).handle(asks(1, need=47_185_920), 0)
    assert refused.detail == "it needs about 47 MB, and there are 1.5 MB for models"


def test_a_demand_that_waited_too_long_is_refused_with_retry_after():
    plan = Scheduler(10, Limits(queue_wait=30))
    plan.handle(asks(1, "a"), 0)
    plan.handle(ChildBecameReady("c1"), 0)
    plan.handle(asks(2, "b"), 0)
    [refused] = plan.handle(TimePassed(), 30)
    assert (refused.request, refused.why) == (2, "waited_too_long")


def test_a_child_goes_at_once_when_the_last_who_wanted_it_gives_up():
    plan = Scheduler(20, Limits(queue_wait=30, patience=5))
    plan.handle(asks(1, "busy", 10), 0)
    plan.handle(ChildBecameReady("c1"), 0)
    plan.handle(asks(2, "a", 10, keep=0), 0)
    plan.handle(Left(2), 0)
    plan.handle(asks(3, "big", 20), 0)
    plan.handle(asks(4, "a", 10, keep=0), 1)
    assert plan.handle(ChildBecameReady("c2"), 10) == []  # kept for the one that waits for all of the memory
    refused, also, stopped = plan.handle(TimePassed(), 40)
    assert (refused.request, also.request) == (3, 4)
    assert stopped == StopChild("c2", "its keep-alive ran out")


def test_max_models_counts_children_and_not_bytes():
    plan = Scheduler(1000, Limits(max_models=1))
    first = loaded(plan, "a", 0, 1)
    assert plan.handle(asks(2, "b"), 1) == [StopChild(first, "another model needs its memory")]


def test_a_pinned_child_neither_expires_nor_makes_way():
    plan = Scheduler(10)
    loaded(plan, "a", 0, 1, keep=1.0, pinned=True)
    assert plan.handle(TimePassed(), 1000) == []
    assert plan.handle(asks(2, "b"), 1000) == []
    assert plan.children["c1"].state == "ready"


def test_what_is_cheap_to_bring_back_goes_before_what_is_dear():
    plan = Scheduler(20)
    dear = loaded(plan, "dear", 0, 1, reload_seconds=60.0)
    cheap = loaded(plan, "cheap", 5, 2, reload_seconds=0.1)
    assert plan.handle(asks(3, "c"), 10)[0].child == cheap
    assert plan.children[dear].state == "ready"


def test_a_priority_passes_those_who_wait_but_not_for_ever():
    plan = Scheduler(10)
    plan.handle(asks(1, "a", slots=1), 0)
    plan.handle(ChildBecameReady("c1"), 0)
    plan.handle(asks(2, "a", slots=1), 0)
    plan.handle(asks(3, "a", slots=1, priority=1), 5)
    plan.handle(asks(4, "a", slots=1, priority=1), 15)
    assert plan.handle(Left(1), 16) == [GrantLease(3, "c1")]
    assert plan.handle(Left(3), 17) == [GrantLease(2, "c1")]


def test_models_that_cannot_live_together_take_turns():
    plan = Scheduler(100)
    first = loaded(plan, "a", 0, 1)
    asked = asks(2, "b", conflicts=frozenset({"a"}))
    assert plan.handle(asked, 1) == [StopChild(first, "another model needs its memory")]
    assert plan.handle(ChildExited(first, ""), 2)[0].request == 2
    plan.handle(ChildBecameReady("c2"), 3)
    assert plan.handle(asks(3, "a"), 4) == []  # b is busy
    assert plan.handle(Left(2), 5) == [StopChild("c2", "another model needs its memory")]


def test_two_models_that_cannot_live_together_do_not_make_room_for_each_other_for_ever():
    plan = Scheduler(100)
    plan.handle(asks(1, "a", keep=0), 0)
    plan.handle(asks(2, "b", conflicts=frozenset({"a"})), 0)
    plan.handle(ChildBecameReady("c1"), 6)
    plan.handle(Left(1), 7)
    assert plan.handle(asks(3, "a"), 7) == []  # the room that is made for b is not a's
    assert [command.request for command in plan.handle(ChildExited("c1", ""), 8)] == [2]


def test_a_child_goes_to_the_first_device_that_has_room_else_is_split():
    plan = Plan({HOST: 100, "G0": 8, "G1": 10})
    wide = Placement({"G0": 6, "G1": 6, HOST: 1}, ("G0", "G1"))
    places = (Placement({"G0": 9, HOST: 1}, ("G0",)), Placement({"G1": 9, HOST: 1}, ("G1",)), wide)
    asked = asks(1, "a")
    [start] = plan.handle(msgspec.structs.replace(asked, placements=places), 0)
    assert start.placement.devices == ("G1",)


def test_room_is_made_only_on_the_device_that_is_short():
    plan = Plan({HOST: 100, "G0": 10, "G1": 10})

    def put(request: int, model: str, device: str, now: float) -> str:
        place = Placement({device: 8, HOST: 1}, (device,))
        [start] = plan.handle(msgspec.structs.replace(asks(request, model), placements=(place,)), now)
        plan.handle(ChildBecameReady(start.child), now)
        plan.handle(Left(request), now)
        return start.child

    put(1, "a", "G1", 0)
    second = put(2, "b", "G0", 1)
    third = msgspec.structs.replace(asks(3, "c"), placements=(Placement({"G0": 8}, ("G0",)),))
    assert plan.handle(third, 2) == [StopChild(second, "another model needs its memory")]


def gpu(size: int, device: str = "G0") -> Placement:
    return Placement({device: size, HOST: 1}, (device,))


def wants(request: int, model: str, *places: Placement, **more: object) -> Requested:
    return msgspec.structs.replace(asks(request, model, **more), placements=places)


def on_gpu(plan: Plan, request: int, model: str, place: Placement, now: float, **more: object) -> str:
    """A ready, idle child of ``model`` on a GPU."""
    [start] = plan.handle(wants(request, model, place, **more), now)
    plan.handle(ChildBecameReady(start.child), now)
    plan.handle(Left(request), now)
    return start.child


def test_what_a_child_held_on_a_gpu_is_taken_until_it_was_seen_to_be_free():
    plan = Plan({HOST: 100, "G0": 10})
    first = on_gpu(plan, 1, "a", gpu(8), 0)
    assert plan.handle(wants(2, "b", gpu(8)), 1) == [StopChild(first, "another model needs its memory")]
    assert plan.handle(ChildExited(first, ""), 2) == [AwaitMemory(first, gpu(8))]
    assert plan.handle(TimePassed(), 3) == []
    [start] = plan.handle(MemoryFreed(first), 4)
    assert start.request == 2


def test_memory_that_nobody_reports_as_freed_counts_as_free_in_the_end():
    plan = Plan({HOST: 100, "G0": 10}, Limits(memory_wait=7))
    first = on_gpu(plan, 1, "a", gpu(8), 0)
    plan.handle(wants(2, "b", gpu(8)), 1)
    plan.handle(ChildExited(first, ""), 2)
    assert plan.deadline() == 9
    [start] = plan.handle(TimePassed(), 9)
    assert start.request == 2


def test_nobody_else_goes_for_memory_that_is_on_its_way():
    plan = Plan({HOST: 100, "G0": 20})
    first, second = on_gpu(plan, 1, "a", gpu(10), 0), on_gpu(plan, 2, "b", gpu(10), 1)
    assert plan.handle(wants(3, "c", gpu(10)), 2) == [StopChild(first, "another model needs its memory")]
    plan.handle(ChildExited(first, ""), 3)
    assert plan.handle(TimePassed(), 4) == []
    assert plan.children[second].state == "ready"


def test_main_memory_is_free_when_the_process_is_gone():
    plan = Scheduler(10)
    first = loaded(plan, "a", 0, 1)
    plan.handle(asks(2, "b"), 1)
    [start] = plan.handle(ChildExited(first, ""), 2)
    assert start.request == 2


def test_a_model_that_fits_a_gpu_waits_for_it_rather_than_be_slow_for_as_long_as_it_lives():
    plan = Plan({HOST: 100, "G0": 10})
    plan.handle(wants(1, "a", gpu(8)), 0)
    plan.handle(ChildBecameReady("c1"), 0)
    places = (gpu(8), Placement({"G0": 2, HOST: 7}, ("G0",), "partly"), Placement({HOST: 9}, (), "host"))
    assert plan.handle(wants(2, "b", *places), 1) == []
    assert plan.handle(Left(1), 2) == [StopChild("c1", "another model needs its memory")]


def test_what_a_pinned_child_keeps_from_a_gpu_is_not_waited_for():
    plan = Plan({HOST: 100, "G0": 10})
    on_gpu(plan, 1, "a", gpu(8), 0, pinned=True)
    places = (gpu(8), Placement({HOST: 9}, (), "host"))
    [start] = plan.handle(wants(2, "b", *places), 1)
    assert start.placement.tier == "host"


def test_a_young_child_stays_for_its_minimum_residency():
    plan = Scheduler(10, Limits(min_residency=5, patience=60))
    loaded(plan, "a", 0, 1)
    assert plan.handle(asks(2, "b"), 1) == []
    assert plan.deadline() == 5
    assert plan.handle(TimePassed(), 5) == [StopChild("c1", "another model needs its memory")]


def test_a_child_whose_settings_changed_drains_while_new_requests_get_a_new_one():
    plan = Scheduler(100)
    plan.handle(asks(1), 0)
    plan.handle(ChildBecameReady("c1"), 0)
    assert plan.handle(KeySuperseded("c1"), 1) == []
    assert isinstance(plan.handle(asks(2), 2)[0], StartChild)
    assert plan.handle(Left(1), 3) == [StopChild("c1", "its settings changed")]


def test_while_a_childs_end_is_looked_into_nothing_is_granted_or_started_for_it():
    plan = Scheduler(100)
    plan.handle(asks(1), 0)
    plan.handle(ChildBecameReady("c1"), 0)
    plan.handle(ChildLost("c1"), 1)
    assert plan.handle(asks(2), 1) == []
    assert isinstance(plan.handle(ChildExited("c1", "SIGSEGV"), 2)[0], StartChild)


def test_a_forced_unload_stops_a_busy_child():
    plan = Scheduler(100)
    plan.handle(asks(1), 0)
    plan.handle(ChildBecameReady("c1"), 0)
    assert plan.handle(UnloadForced("a"), 1) == [StopChild("c1", "somebody wants it gone at once")]
    assert plan.handle(Left(1), 2) == []


def test_a_demand_that_a_shrunken_budget_cannot_hold_keeps_nobody_else_waiting():
    plan = Plan({HOST: 60}, Limits(patience=5))
    plan.handle(asks(1, "a", 40), 0)
    plan.handle(ChildBecameReady("c1"), 0)
    assert plan.handle(asks(2, "b", 50), 1) == []  # a is busy
    assert plan.handle(BudgetMeasured({HOST: 45}), 10) == []
    plan.handle(Left(1), 11)
    [stop, start] = [*plan.handle(asks(3, "c", 30), 12), *plan.handle(ChildExited("c1", ""), 13)]
    assert (stop.child, start.request) == ("c1", 3)


class Histories(RuleBasedStateMachine):
    """Random requests, leavings, readiness, exits and time; the world obeys every command sooner or later."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = Plan(
            {HOST: 30, "G0": 20, "G1": 20}, Limits(max_queue=12, queue_wait=200, patience=5, memory_wait=8)
        )
        self.settling: set[str] = set()
        self.now = 0.0
        self.number = 0
        self.open: set[int] = set()
        self.granted: dict[int, str] = {}
        self.settled: set[int] = set()
        self.short = False

    def tell(self, event: object) -> None:
        if self.short and self.told_at_once(event):
            return
        before = {c.id: set(c.leases) for c in self.plan.children.values()}
        before_taken = self.taken()
        commands = self.plan.handle(event, self.now)
        for command in commands:
            match command:
                case StopChild(child):
                    released = {event.request} if isinstance(event, Left) else set()
                    assert not before.get(child, set()) - released, "a busy child was chosen"
                case GrantLease(request, child):
                    assert request in self.open
                    assert request not in self.settled, "answered twice"
                    assert self.plan.children[child].state == "ready"
                    self.settled.add(request)
                    self.granted[request] = child
                case RefuseRequest(request):
                    assert request in self.open
                    assert request not in self.settled, "answered twice"
                    self.settled.add(request)
                    self.open.discard(request)
                case StartChild(placement=placement):
                    for device, used in self.taken().items():
                        within = used <= self.plan.budget[device] or used <= before_taken.get(device, 0)
                        assert within or device not in placement.need, f"too much on {device}"
                case AwaitMemory(child):
                    self.settling.add(child)

    def taken(self) -> dict[str, int]:
        """What children and what they left take, by device."""
        found: dict[str, int] = {}
        for holder in (*self.plan.children.values(), *self.plan.residues.values()):
            for device, size in holder.placement.need.items():
                found[device] = found.get(device, 0) + size
        return found

    def told_at_once(self, event: object) -> bool:
        """The short ways of the plan, where they are open."""
        if isinstance(event, Left):
            return self.plan.left_at_once(event.request, self.now)
        child = self.plan.granted_at_once(event, self.now) if isinstance(event, Requested) else ""
        if child:
            assert self.plan.children[child].state == "ready"
            self.settled.add(event.request)
            self.granted[event.request] = child
        return bool(child)

    @initialize(short=st.booleans())
    def choose_ways(self, short: bool) -> None:
        self.short = short

    @rule(
        model=st.sampled_from("abcd"),
        need=st.sampled_from([5, 10, 20, 40]),
        keep=st.sampled_from([0.0, 3.0, 60.0, math.inf]),
        context=st.sampled_from([0, 500, 2000]),
        priority=st.sampled_from([0, 0, 0, 2]),
        clash=st.sampled_from([(), (), ("a",), ("b", "c")]),
        where=st.sampled_from(["host", "host", "gpus"]),
        ttl=st.sampled_from([TTL, TTL, math.inf]),
        modest=st.sampled_from([False, False, False, True]),
    )
    def request(
        self,
        model: str,
        need: int,
        keep: float,
        context: int,
        priority: int,
        clash: tuple[str, ...],
        where: str,
        ttl: float,
        modest: bool,
    ) -> None:
        self.number += 1
        self.open.add(self.number)
        more = {"priority": priority, "conflicts": frozenset(clash) - {model}, "ttl": ttl}
        asked = asks(self.number, model, need, 2, keep, context, modest=modest, **more)
        half = Placement({"G0": need // 2, "G1": need // 2, HOST: 1}, ("G0", "G1"))
        rest = Placement({"G0": 20, "G1": 20, HOST: max(1, need - 40)}, ("G0", "G1"), "partly")
        alone = Placement({HOST: need}, (), "host")
        places = (gpu(need), gpu(need, "G1"), half, rest, alone) if where == "gpus" else asked.placements
        self.tell(msgspec.structs.replace(asked, placements=places))

    @precondition(lambda self: self.settling)
    @rule(data=st.data())
    def free_memory(self, data: st.DataObject) -> None:
        child = data.draw(st.sampled_from(sorted(self.settling)))
        self.settling.discard(child)
        self.tell(MemoryFreed(child))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(self.open)))
        self.open.discard(request)
        self.granted.pop(request, None)
        self.tell(Left(request))

    @precondition(lambda self: any(c.state == "loading" for c in self.plan.children.values()))
    @rule(data=st.data(), well=st.booleans())
    def finish_load(self, data: st.DataObject, well: bool) -> None:
        child = data.draw(
            st.sampled_from([c.id for c in self.plan.children.values() if c.state == "loading"])
        )
        self.tell(ChildBecameReady(child) if well else ChildExited(child, "failed"))

    @precondition(lambda self: self.plan.children)
    @rule(data=st.data())
    def exit(self, data: st.DataObject) -> None:
        child = data.draw(st.sampled_from(sorted(self.plan.children)))
        self.tell(ChildExited(child, "died"))
        for request in [r for r, c in self.granted.items() if c == child]:
            del self.granted[request]
            self.open.discard(request)

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.tell(TimePassed())

    @precondition(lambda self: self.plan.children)
    @rule(data=st.data())
    def supersede(self, data: st.DataObject) -> None:
        self.tell(KeySuperseded(data.draw(st.sampled_from(sorted(self.plan.children)))))

    @rule(model=st.sampled_from("abcd"))
    def unload(self, model: str) -> None:
        self.tell(KeepAliveChanged(model, 0.0))

    @rule(budget=st.sampled_from([20, 30, 60]))
    def measure(self, budget: int) -> None:
        self.tell(BudgetMeasured({HOST: budget, "G0": budget * 2 // 3, "G1": 20}))

    @invariant()
    def no_two_children_of_one_key(self) -> None:
        keys = [c.key for c in self.plan.children.values() if c.state != "stopping" and not c.superseded]
        assert len(keys) == len(set(keys))

    @invariant()
    def nothing_outstays_its_ttl(self) -> None:
        for child in self.plan.children.values():
            wanted = any(child.key.serves(demand.key) for demand in self.plan.waiting.values())
            if child.is_idle and not wanted:
                assert self.now < child.used + child.ttl

    @invariant()
    def leases_are_within_slots_and_known(self) -> None:
        for child in self.plan.children.values():
            assert len(child.leases) <= child.slots
        assert set(self.plan.leases) == set(self.granted)
        assert not set(self.plan.waiting) & set(self.plan.leases)

    @invariant()
    def models_that_clash_never_live_together(self) -> None:
        living = list(self.plan.children.values())
        for child in living:
            others = [other for other in living if other is not child and other.key.model != child.key.model]
            assert not any(other.key.model in child.conflicts for other in others)

    @invariant()
    def the_queue_is_bounded(self) -> None:
        assert len(self.plan.waiting) <= self.plan.limits.max_queue

    def teardown(self) -> None:
        """Once everybody behaves, nobody waits for ever; but for what the budget cannot hold any more."""
        for _ in range(100):
            for request in list(self.granted):
                self.leave_quietly(request)
            for child in list(self.plan.children.values()):
                if child.state == "loading":
                    self.tell(ChildBecameReady(child.id))
                elif child.state == "stopping":
                    self.tell(ChildExited(child.id, "asked to"))
            if not self.plan.waiting:
                break
            self.now += 1.0
            self.tell(TimePassed())
        whole = Room(self.plan.budget)
        waiting = self.plan.waiting.values()
        starved = [d for d in waiting if not all(whole.short_of(place) for place in d.event.placements)]
        assert not starved, "a demand was starved"

    def leave_quietly(self, request: int) -> None:
        self.open.discard(request)
        del self.granted[request]
        self.tell(Left(request))


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=300, stateful_step_count=80, deadline=None)


def test_a_request_that_need_not_wait_is_granted_at_once_and_leaves_as_any_other():
    plan, other = Plan({HOST: 100}), Plan({HOST: 100})
    for one in (plan, other):
        one.handle(asks(1), 0)
        one.handle(ChildBecameReady("c1"), 0)
    assert plan.granted_at_once(asks(2), 1) == "c1"
    other.handle(asks(2), 1)
    assert plan.left_at_once(2, 5)
    other.handle(Left(2), 5)
    assert (plan.children, plan.leases, plan.deadline()) == (other.children, other.leases, other.deadline())


def test_nothing_is_granted_at_once_past_somebody_who_waits_or_on_a_full_child():
    plan = Plan({HOST: 100})
    assert plan.granted_at_once(asks(1, slots=1), 0) == ""
    plan.handle(asks(1, slots=1), 0)
    assert plan.granted_at_once(asks(2, slots=1), 0) == "", "it is loading"
    plan.handle(ChildBecameReady("c1"), 0)
    assert plan.granted_at_once(asks(3, slots=1), 0) == "", "it is full"
    plan.handle(asks(4, slots=1), 0)
    assert not plan.left_at_once(1, 0), "somebody waits for the slot"


def test_a_child_that_is_to_go_after_its_request_is_not_left_at_once():
    plan = Plan({HOST: 100})
    plan.handle(asks(1, keep=0), 0)
    plan.handle(ChildBecameReady("c1"), 0)
    assert not plan.left_at_once(1, 1)
    assert isinstance(plan.handle(Left(1), 1)[0], StopChild)


def test_nobody_makes_way_for_what_is_loaded_without_being_asked_for():
    plan = Scheduler(30)
    loaded(plan, "a", 0, 1)
    plan.handle(Left(1), 1)
    (refused,) = plan.handle(asks(2, "b", need=25, modest=True), 2)
    assert isinstance(refused, RefuseRequest)
    assert refused.why == "no_room"
    assert isinstance(plan.handle(asks(3, "c", need=20, modest=True), 3)[0], StartChild), "that much is free"


def test_what_cannot_live_beside_another_is_not_loaded_unasked():
    plan = Scheduler(100)
    loaded(plan, "a", 0, 1)
    (refused,) = plan.handle(asks(2, "b", modest=True, conflicts=frozenset("a")), 2)
    assert isinstance(refused, RefuseRequest)
    assert plan.children["c1"].state == "ready"
