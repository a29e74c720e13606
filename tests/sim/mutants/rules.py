"""Deliberate faults in how engines other than vLLM fill their iterations. Read next: `batch.py`, which tries them."""

from typing import Final

from tests.sim.mutants.catalogue import Mutant

RULE_MUTANTS: Final = (
    Mutant(
        "what is accepted after the last token of an answer is promised no more",
        "sim/kernel/batching.py",
        '        engine["promised"] += beyond\n',
        "",
        first=763,
    ),
    Mutant(
        "drafts need no memory",
        "sim/kernel/admission.py",
        'profile["drafted"] + 1\n    preempted = False',
        "1\n    preempted = False",
    ),
    Mutant(
        "an engine that never preempts forgets what those inside will take",
        "sim/kernel/admission.py",
        'engine["used"], engine["promised"], context',
        'engine["used"], 0, context',
        first=69,
    ),
    Mutant(
        "what was promised stays promised after it was taken",
        "sim/kernel/batching.py",
        '    engine["promised"] -= grown\n',
        "",
        first=69,
    ),
    Mutant(
        "an engine that pauses decoding gives prompts less than its whole budget",
        "sim/kernel/batching.py",
        '(engine["running"] * each if mixed else 0)',
        'engine["running"] * each',
        first=45,
    ),
    Mutant(
        "CUDA graphs hold batches of any size",
        "core/engine/timing.py",
        'if prefill > 0 or sequences > profile["graphs"]:',
        "if prefill > 0:",
        first=15,
    ),
)
