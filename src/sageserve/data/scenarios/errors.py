"""What pydantic finds wrong with a document, in words of scenarios: where, at which keys, and what to write instead.

Knows the shape of pydantic's errors and the settings tree; must not decide what is wrong.
Read next: `load.py`, which collects complaints from all stages on one screen.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Final, TypeAlias, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sageserve.base.config import Scenario
from sageserve.base.units import duration_us, show_duration
from sageserve.base.urls import shown_text
from sageserve.data.documents import suggest
from sageserve.data.yaml_positions import Complaint, Document, Keys

COMPLAINTS_MAX: Final = 10  # what fits a screen beside its explanations
MISSING: Final = "is missing"
_UNIONS: Final = (UnionType, get_origin(Annotated[int, ""] | None))  # X | Y, and the same where X is annotated
Shape: TypeAlias = object
"""A type annotation of the settings tree."""


def node_below(shape: Shape, key: str | int) -> Shape:
    """The annotation one key further down: a field of a settings node, or the values of a mapping or list."""
    shape = _certain(shape)
    if isinstance(shape, type) and issubclass(shape, BaseModel):
        field = shape.model_fields.get(str(key))
        return field.annotation if field else None
    arguments = get_args(shape)
    if get_origin(shape) is dict:
        return arguments[1]
    return arguments[0] if arguments else None


def node_at(keys: Keys) -> Shape:
    """The annotation at a path of the settings tree; None where there is nothing."""
    shape: Shape = Scenario
    for key in keys:
        shape = node_below(shape, key)
    return _certain(shape)


def _certain(shape: Shape) -> Shape:
    """What may be there, of what is there or not: `X | None` is X."""
    parts = [part for part in get_args(shape) if part is not type(None)] if get_origin(shape) in _UNIONS else []
    return parts[0] if len(parts) == 1 else shape


def field_names(keys: Keys) -> tuple[str, ...]:
    """Fields of the settings node at a path; empty where there is none."""
    shape = node_at(keys)
    return tuple(shape.model_fields) if isinstance(shape, type) and issubclass(shape, BaseModel) else ()


def _short(value: object) -> str:
    text = shown_text(repr(value))
    return text if len(text) <= 40 else text[:37] + "..."


_NOT_WHOLE: Final = "{given} is not a whole number"
_NOT_NUMBER: Final = "{given} is not a number"
_NOT_NAME: Final = "{given} is not a name: use letters, digits, '.', '_', '/' and '-', at most 100"
_SENTENCES: Final[Mapping[str, str]] = {
    "missing": MISSING,
    "int_type": _NOT_WHOLE,
    "int_parsing": _NOT_WHOLE,
    "int_from_float": _NOT_WHOLE,
    "float_type": _NOT_NUMBER,
    "float_parsing": _NOT_NUMBER,
    "finite_number": _NOT_NUMBER,
    "bool_type": "{given} is neither true nor false",
    "bool_parsing": "{given} is neither true nor false",
    "string_type": "{given} is not text; put it in quotes",
    "greater_than_equal": "{given} is less than {ge}",
    "greater_than": "{given} must be more than {gt}",
    "less_than_equal": "{given} is more than {le}",
    "less_than": "{given} must be less than {lt}",
    "string_too_long": "{given} has more than {max_length} characters",
    "dict_type": "needs entries of its own, not {given}",
    "tuple_type": "needs a list, not {given}",
    "too_short": "needs {min_length} entries or more, has {actual_length}",
    "too_long": "has more than {max_length} entries",
}
"""What to say for each kind of pydantic's errors; kinds that need more than their context are in `_sentence`."""
_FORMS: Final[Mapping[str, str]] = {
    "^[A-Z]{3}$": "a currency: write the three capitals of ISO 4217, as in EUR",
    "^/": "an absolute path: begin with /",
    "^[A-Za-z_][A-Za-z0-9_]*$": "the name of a variable: use letters, digits and '_'",
    "^[0-9a-f]{64}$": "a SHA-256: it has 64 digits of 0-9 and a-f",
    "^https?://[^/]": "a URL: begin with http:// or https:// and a host",
    "^(/|https?://[^/])": "a URL or an absolute folder: begin with https:// and a host, or with /",
}
"""What texts with such a pattern are, where it is not plain from the words on names."""


def _in_units(context: Mapping[str, object], given: object) -> Mapping[str, object]:
    """Bounds of durations as people write them, not in microseconds."""
    try:
        duration_us(given if isinstance(given, str) else "")
    except ValueError:
        return context
    return {name: show_duration(one) if isinstance(one, int) else one for name, one in context.items()}


def _sentence(error: ErrorDetails, keys: Keys) -> str:
    context = error.get("ctx", {})
    given = _short(error["input"])
    match error["type"]:
        case "extra_forbidden":
            return "unknown key" + suggest(str(keys[-1]), field_names(keys[:-1]))
        case "value_error":
            return str(context["error"])
        case "literal_error":
            node = node_at(keys)
            parts = get_args(node) if get_origin(node) in _UNIONS else (node,)
            choices = [choice for part in parts for choice in get_args(part) if isinstance(choice, str)]
            return f"{given} is not one of {', '.join(choices)}" + (", nor a list" if len(parts) > 1 else "")
        case "model_type":
            return f"needs settings of its own ({', '.join(field_names(keys))}), not {given}"
        case "string_pattern_mismatch":
            form = _FORMS.get(context["pattern"])
            return f"{given} is not {form}" if form else _NOT_NAME.format(given=given)
        case kind if kind in _SENTENCES:
            return _SENTENCES[kind].format(given=given, **_in_units(context, error["input"]))
        case _:
            return error["msg"][:1].lower() + error["msg"][1:]


def complaints_of(error: ValidationError, document: Document) -> Iterator[Complaint]:
    """One complaint per thing pydantic found, with the place where it was written."""
    found = error.errors(include_url=False)
    for details in found:
        entries = [other for other in found if other["loc"][:-1] == details["loc"]]
        if details["type"] == "too_short" and entries:
            continue  # pydantic counts entries that are right; which are wrong is said
        keys = tuple(key for key in details["loc"] if key != "[key]")
        choice = next((end for end in range(len(keys)) if get_origin(node_at(keys[:end])) in _UNIONS), None)
        if choice is not None:  # a number or a list of them: pydantic complains once for each, and names it among the keys
            of_list = isinstance(details["input"], list) and choice + 1 == len(keys) and details["type"] != "too_short"
            if of_list or details["type"] == "tuple_type":
                continue
            keys = (*keys[:choice], *keys[choice + 1 :])
        place = document.place(keys)
        yield Complaint(str(place or ""), keys, _sentence(details, keys))


def on_one_screen(name: str, complaints: Sequence[Complaint]) -> str:
    """All complaints, at most COMPLAINTS_MAX of them in full, in the order of the file."""
    count = len(complaints)
    if count == 1:
        return f"scenario {name}: {complaints[0]}"
    lines = [f"  {complaint}" for complaint in complaints[:COMPLAINTS_MAX]]
    more = [f"  and {count - COMPLAINTS_MAX} more"] if count > COMPLAINTS_MAX else []
    return "\n".join([f"scenario {name}: {count} settings are wrong", *lines, *more])
