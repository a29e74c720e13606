"""Strategies by name: the rules that decide how many instances each pool has.

All of them start from one state and use the same router, signal and delays; `base.py` says what one must be able to do.
"""

from collections.abc import Mapping
from typing import Final

from sageserve.core.strategies.base import Strategy, StrategyKind
from sageserve.core.strategies.chiron import Chiron
from sageserve.core.strategies.foresight import Foresight
from sageserve.core.strategies.planned import LtI, LtU, LtUA
from sageserve.core.strategies.reactive import Reactive
from sageserve.core.strategies.siloed import Siloed

STRATEGIES: Final[Mapping[str, StrategyKind]] = {
    "siloed": Siloed,
    "reactive": Reactive,
    "lt-i": LtI,
    "lt-u": LtU,
    "lt-ua": LtUA,
    "chiron": Chiron,
    "foresight": Foresight,
}

__all__ = ["STRATEGIES", "Strategy", "StrategyKind"]
