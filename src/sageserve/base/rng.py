"""Named random streams: equal seed and name give equal numbers, whatever else draws.

A stream is made where it is used, from the scenario's seed and a name for the purpose ("arrivals/eastus", "assign/tier").
Adding a consumer never shifts the numbers of another. Nothing else in the package may make a generator.
"""

import hashlib

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """The generator that belongs to this seed and this name.

    Args:
        seed: the scenario's seed, any integer >= 0.
        name: what the numbers are for; parts are separated by "/".
    """
    digest = hashlib.sha256(name.encode()).digest()
    words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence([seed, *words])))
