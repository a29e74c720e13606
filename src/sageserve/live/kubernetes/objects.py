"""One object of a cluster, looked into by path: what is missing or of another type is empty, never an error.

Objects come from many controllers in many versions, so nothing is taken for granted. Knows no kind. Read next: `reader.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


@dataclass(frozen=True, slots=True)
class KubeObject:
    """An object, or a part of one."""

    data: Mapping[str, Json]

    def at(self, *path: str) -> Json:
        """What stands there; None when nothing does."""
        found: Json = self.data
        for key in path:
            if not isinstance(found, Mapping):
                return None
            found = found.get(key)
        return found

    def text(self, *path: str) -> str:
        """Text, or empty."""
        found = self.at(*path)
        return found if isinstance(found, str) else ""

    def number(self, *path: str) -> int | None:
        """A whole number, or None."""
        found = self.at(*path)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def part(self, *path: str) -> "KubeObject":
        """An object inside, or an empty one."""
        found = self.at(*path)
        return KubeObject(found if isinstance(found, Mapping) else {})

    def parts(self, *path: str) -> list["KubeObject"]:
        """Objects of a list inside."""
        found = self.at(*path)
        items = found if isinstance(found, Sequence) and not isinstance(found, str) else ()
        return [KubeObject(one) for one in items if isinstance(one, Mapping)]

    def texts(self, *path: str) -> list[str]:
        """Texts of a list inside."""
        found = self.at(*path)
        items = found if isinstance(found, Sequence) and not isinstance(found, str) else ()
        return [one for one in items if isinstance(one, str)]

    def labels(self, *path: str) -> dict[str, str]:
        """A mapping of texts inside; its other entries are left out."""
        found = self.at(*path)
        return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, Mapping) else {}

    @property
    def kind(self) -> str:
        """Its kind."""
        return self.text("kind")

    @property
    def name(self) -> str:
        """Its name."""
        return self.text("metadata", "name")

    @property
    def namespace(self) -> str:
        """Its namespace; empty for those without."""
        return self.text("metadata", "namespace")

    @property
    def annotations(self) -> dict[str, str]:
        """Its annotations."""
        return self.labels("metadata", "annotations")

    def condition(self, kind: str) -> "KubeObject":
        """The condition of that type in its status, or an empty one."""
        return next((one for one in self.parts("status", "conditions") if one.text("type") == kind), KubeObject({}))


def selects(selector: KubeObject, labels: Mapping[str, str]) -> bool:
    """Whether a label selector (`matchLabels`, `matchExpressions`) matches; one that is empty matches nothing here."""
    wanted = selector.labels("matchLabels")
    rules = selector.parts("matchExpressions")
    if not wanted and not rules:
        return False
    return all(labels.get(key) == value for key, value in wanted.items()) and all(_holds(rule, labels) for rule in rules)


def _holds(rule: KubeObject, labels: Mapping[str, str]) -> bool:
    key, values = rule.text("key"), rule.texts("values")
    match rule.text("operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return False


def quantity(value: Json) -> float:
    """A count as Kubernetes writes it (`8`, `"8"`, `"2k"`); 0 for what is none."""
    text = str(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else "0"
    scale = {"k": 1e3, "M": 1e6, "m": 1e-3}.get(text[-1:], 1.0)
    try:
        return float(text.rstrip("kMm")) * scale
    except ValueError:
        return 0.0


def fleet_object(fleet: str) -> str:
    """The name of our own objects of a fleet, its lease and its orders, and of its field manager."""
    plain = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in fleet.lower())
    return f"sageserve-{plain.strip('-')}"[:63].rstrip("-")
