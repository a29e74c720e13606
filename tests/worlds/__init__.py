"""Worlds of the tests' own: scenarios that stay what they are when one that ships changes.

Read next: small-fleet.yaml.
"""

from pathlib import Path
from typing import Final

SMALL_FLEET: Final = str(Path(__file__).with_name("small-fleet.yaml"))  # half of the paper's fleet for a day
