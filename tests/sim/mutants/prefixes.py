"""Deliberate faults of the prefix cache: eviction, counting of users, sharing, and what is found.

All are tried in one process (`prefix_trial.py`), function by function. Read next: `catalogue.py`, the other faults of the kernel.
"""

from tests.sim.mutants.catalogue import Mutant

CACHE = "sim/kernel/prefix_cache.py"
TREE = "sim/kernel/prefixes/tree.py"
ADMISSION = "sim/kernel/admission.py"
PREFIX_MUTANTS = (
    Mutant(
        "affinity looks at load alone", "core/route.py", "(prompt - int(overlap * found[k])) * weights[k]", "prompt * weights[k]"
    ),
    Mutant(
        "affinity looks at caches alone",
        "core/route.py",
        "outstanding[begin + k] + (prompt - int",
        "(0 if outstanding[begin + k] < 2**61 else 2**62) + (prompt - int",
    ),
    Mutant("tokens of slow engines cost no more", "core/route.py", "* found[k])) * weights[k]", "* found[k])) * 1000"),
    Mutant(
        "closed instances have something, too",
        "sim/kernel/choices/instances.py",
        "if tree[begin + k] != CLOSED else 0",
        "if tree[begin + k] != CLOSED else 2**52",
    ),
    Mutant(
        "the most recently used goes first",
        CACHE,
        '        n = cache["first"]\n        going',
        '        n = cache["last"]\n        going',
    ),
    Mutant("nothing ever goes", CACHE, "    while over > 0 and", "    while over > 10**9 and"),
    Mutant("one block too many goes", CACHE, "(over + size - 1) // size", "(over + size) // size"),
    Mutant("whole prompts go at once", CACHE, 'if going == nodes[n]["resident"]:', "if going > 0:"),
    Mutant(
        "one user more is counted than there is",
        CACHE,
        '    node["users"] += 1\n    if node["users"] > 1:',
        '    node["users"] += 2\n    if node["users"] > 2:',
    ),
    Mutant(
        "the last but one who leaves lets go for all",
        CACHE,
        '        if node["users"] > 0:\n            return\n',
        '        if node["users"] > 1:\n            return\n',
    ),
    Mutant("shared blocks take memory twice", CACHE, '    if node["users"] > 1:\n        return False\n    blocks', "    blocks"),
    Mutant("blocks let go take memory for ever", CACHE, '        engine["used"] -= segment["blocks"] * w["block_tokens"]\n', ""),
    Mutant(
        "blocks of a prompt that was not finished are found",
        CACHE,
        'whole = max(prefix["found"], computed // w["block_tokens"])',
        "whole = ALL",
    ),
    Mutant("answers are not kept", CACHE, "        keep_answer(w, i, q)\n", ""),
    Mutant(
        "an instance that was closed remembers",
        "sim/kernel/engine.py",
        "            forget(w, row_of_rank(w, i, k))\n",
        "            pass\n",
    ),
    Mutant(
        "an instance has what others have",
        CACHE,
        'nodes[n]["segment"] != s or nodes[n]["instance"] != i',
        'nodes[n]["segment"] != s',
    ),
    Mutant(
        "blocks of others are not shared at admission",
        ADMISSION,
        "        blocks, held = shared(w, i, q)\n",
        "        blocks, held = shared(w, i, q)\n        held = 0\n",
    ),
    Mutant("what was expected is never put right", ADMISSION, 'if r["made"] == 0 and found', 'if r["made"] < 0 and found'),
    Mutant(
        "idle blocks are memory that others cannot have", CACHE, 'over = engine["used"] + cache["idle"]', 'over = cache["idle"]'
    ),
    Mutant(
        "what decoding makes takes nothing from the cache",
        "sim/kernel/batching.py",
        '    if w["caches"] != 0:\n        make_way(w, i)\n',
        "",
    ),
    Mutant("a hash alone says which block it is", TREE, "(parent[table[slot] - 1] != block or code", "(code"),
    Mutant(
        "blocks that are cut are cached",
        TREE,
        "whole = np.minimum(counts, prompt.astype(np.int64) // size)",
        "whole = np.minimum(counts, -(-prompt.astype(np.int64) // size))",
    ),
    Mutant("answers end where the next turn does", TREE, "want = min(kept[q], whole[after[q]])", "want = whole[after[q]]"),
)
