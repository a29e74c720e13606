"""The slots of a rank for LoRA adapters: taken when a request is admitted, left when it is out of the batch, loaded when needed.

Which slot is taken says `core/engine/rules.py`. The rules are stated in docs/reference/kernel.md, "Adapters". Nothing here is
called in a world without them. Read next: `passing.py`.
"""

from sageserve.base.kernel import Rec, kernel, viewer
from sageserve.base.records import UNSET
from sageserve.core.engine import rules
from sageserve.core.perf import adapters_time
from sageserve.sim.kernel.rows.adapters import ADAPTED, SLOT
from sageserve.sim.kernel.state import view_engines, view_i4, view_i8, view_profiles, view_requests

view_slots = viewer(SLOT)
view_adapted = viewer(ADAPTED)
slot_for = kernel(rules.slot_for)


@kernel
def find_slot(w: Rec, i: int, q: int) -> int:
    """The slot of rank `i` that request `q` takes; -1: all are in use by other adapters; -2: it needs none."""
    adapter = view_i4(w["at_adapter"], w["rows"])[q]
    engine = view_engines(w["at_engines"], w["units"])[i]
    many = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]["slots"]
    if adapter < 0 or many == 0:
        return -2
    begin = i * w["slot_rows"]
    return int(slot_for(view_slots(w["at_adapter_slots"], w["units"] * w["slot_rows"]), begin, begin + many, adapter))


@kernel
def is_loaded(w: Rec, i: int, q: int) -> bool:
    """Whether rank `i` has the adapter that request `q` asks for in a slot."""
    k = find_slot(w, i, q)
    adapter = view_i4(w["at_adapter"], w["rows"])[q]
    return k >= 0 and view_slots(w["at_adapter_slots"], w["units"] * w["slot_rows"])[k]["adapter"] == adapter


@kernel
def take_slot(w: Rec, i: int, q: int, now: int) -> None:
    """Request `q` is admitted at rank `i`, which has a slot for its adapter, and loads it if it was not there."""
    passed = view_i8(w["at_passed"], w["rows"])
    if passed[q] != UNSET:
        view_i8(w["at_slot_wait"], w["rows"])[q] += now - passed[q]
        passed[q] = UNSET
    k = find_slot(w, i, q)
    if k < 0:
        return
    adapter = view_i4(w["at_adapter"], w["rows"])[q]
    rank = view_adapted(w["at_adapter_units"], w["units"])[i]
    slot = view_slots(w["at_adapter_slots"], w["units"] * w["slot_rows"])[k]
    endpoint = view_engines(w["at_engines"], w["units"])[i]["endpoint"]
    view_i8(w["at_adapter_admitted"], w["endpoint_count"])[endpoint] += 1
    if slot["adapter"] != adapter:
        slot["adapter"] = adapter
        rank["loads"] += 1
        view_i8(w["at_adapter_loads"], w["endpoint_count"])[endpoint] += 1
    if slot["users"] == 0:
        rank["in_use"] += 1
        rank["version"] += 1
    slot["users"] += 1


@kernel
def leave_slot(w: Rec, i: int, q: int) -> None:
    """Request `q` is no longer in the batch of rank `i`; its adapter stays where it is until the slot is needed."""
    k = find_slot(w, i, q)
    if k < 0:
        return
    slot = view_slots(w["at_adapter_slots"], w["units"] * w["slot_rows"])[k]
    slot["users"] -= 1
    if slot["users"] == 0:
        rank = view_adapted(w["at_adapter_units"], w["units"])[i]
        rank["clock"] += 1
        slot["used"] = rank["clock"]
        rank["in_use"] -= 1
        rank["version"] += 1


@kernel
def empty_slots(w: Rec, i: int) -> None:
    """Nothing is loaded at rank `i`, and nobody computes there."""
    for k in range(i * w["slot_rows"], (i + 1) * w["slot_rows"]):
        slot = view_slots(w["at_adapter_slots"], w["units"] * w["slot_rows"])[k]
        slot["adapter"], slot["users"], slot["used"] = UNSET, 0, 0
    rank = view_adapted(w["at_adapter_units"], w["units"])[i]
    rank["in_use"], rank["loads"], rank["clock"] = 0, 0, 0
    rank["version"] += 1


@kernel
def count_computing(w: Rec, i: int) -> int:
    """Adapters of the prompts that rank `i` prefills in its next iteration."""
    engine = view_engines(w["at_engines"], w["units"])[i]
    adapter = view_i4(w["at_adapter"], w["rows"])
    requests = view_requests(w["at_requests"], w["rows"])
    found = 0
    if engine["partial"] >= 0 and adapter[engine["partial"]] >= 0:
        found = 1
    q = engine["batch"]
    while q >= 0:
        seen = adapter[q] < 0 or (engine["partial"] >= 0 and adapter[engine["partial"]] == adapter[q])
        other = engine["batch"]
        while not seen and other != q:
            seen = adapter[other] == adapter[q]
            other = requests[other]["next"]
        found += not seen
        q = requests[q]["next"]
    return int(found)


@kernel
def slots_time(w: Rec, i: int, tokens: int) -> float:
    """Microseconds that the next iteration of rank `i`, with so many prompt tokens, takes more for adapters."""
    engine = view_engines(w["at_engines"], w["units"])[i]
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
    if profile["slots"] == 0:
        return 0.0
    rank = view_adapted(w["at_adapter_units"], w["units"])[i]
    loads = rank["loads"]
    rank["loads"] = 0
    computing = count_computing(w, i) if profile["mixed"] == 0 and tokens > 0 else rank["in_use"]
    return adapters_time(profile, computing, loads)
