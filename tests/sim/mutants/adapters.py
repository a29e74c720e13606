"""Deliberate faults in what LoRA adapters take, and in who waits for a slot.

Read next: `test_mutants.py`; docs/reference/kernel.md, "Adapters", for what should happen.
"""

from typing import Final

from tests.sim.mutants.catalogue import Mutant

SLOTS: Final = "sim/kernel/adapters/slots.py"
PASSING: Final = "sim/kernel/adapters/passing.py"

ADAPTER_MUTANTS: Final = (
    Mutant("a slot is free while its adapter computes", SLOTS, '    slot["users"] += 1\n', '    slot["users"] = 1\n'),
    Mutant("an adapter that is there is loaded again", SLOTS, 'if slot["adapter"] != adapter:', 'if slot["users"] == 0:'),
    Mutant("loading takes no time", SLOTS, '    loads = rank["loads"]\n', "    loads = 0\n"),
    Mutant("every iteration loads again", SLOTS, '    rank["loads"] = 0\n', ""),
    Mutant(
        "the adapter that was used last makes way",
        SLOTS,
        '        slot["used"] = rank["clock"]\n',
        '        slot["used"] = -rank["clock"]\n',
    ),
    Mutant(
        "an instance that opens has what another had",
        SLOTS,
        'slot["adapter"], slot["users"], slot["used"] = UNSET, 0, 0',
        "pass",
        first=2,
    ),
    Mutant("a prompt pays for those that pause", SLOTS, 'if profile["mixed"] == 0 and tokens > 0 else', "if False else", first=2),
    Mutant(
        "who waits is forgotten when a slot is free",
        PASSING,
        "    if seen[k] != version:\n",
        "    if seen[k] == UNSET:\n",
        first=15,
    ),
    Mutant("who is passed over blocks the queue", PASSING, "find_slot(w, i, q) == -1:", "find_slot(w, i, q) == -9:", first=15),
    Mutant(
        "a queue loses its end", PASSING, '        view_i4(w["at_tails"], w["units"] * lanes)[k] = before\n', "        pass\n"
    ),
    Mutant(
        "who is preempted keeps a slot",
        "sim/kernel/admission.py",
        "        leave_slot(w, i, q)\n",
        "        pass\n",
    ),
    Mutant(
        "who came in front is not looked at",
        "sim/kernel/queues.py",
        '    heads[k] = q\n    if w["adapted"] != 0:\n        look_anew(w, i)\n',
        "    heads[k] = q\n",
        first=24,
    ),
    Mutant(
        "who is done keeps a slot",
        "sim/kernel/batching.py",
        'if w["adapted"] != 0 and (last or leaves):',
        'if w["adapted"] != 0 and leaves:',
    ),
    Mutant(
        "an adapter goes on loading while others compute",
        "sim/kernel/batching.py",
        'or (w["adapted"] != 0 and view_adapted(w["at_adapter_units"], w["units"])[i]["loads"] > 0)',
        "",
    ),
    Mutant(
        "routing does not see what is loaded",
        "sim/kernel/choices/instances.py",
        'found[k] += w["adapter_tokens"]',
        "found[k] += 0",
    ),
)
