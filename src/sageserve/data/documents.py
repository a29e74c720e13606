"""Files of settings as documents: reading one, what messages call it, and what someone may have meant.

Knows sizes and encodings, and where the package keeps its own files. Must not know what any key means.
Read next: `yaml_positions.py` for the YAML itself, `data/scenarios/layers.py` and `data/profiles/library.py` for what is read.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from sageserve.base.errors import ConfigError
from sageserve.data.yaml_positions import BYTES_MAX, Document, read_yaml

BUILTIN: Final = Path(__file__).parent / "builtin"


def suggest(word: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?`, or what there is when nothing is close and the list is short."""
    if close := get_close_matches(word, known, n=1, cutoff=0.6):
        return f"; did you mean {close[0]!r}?"
    return f"; there is {', '.join(known)}" if 0 < len(known) <= 12 else ""


def source_name(path: Path) -> str:
    """What messages call a file: the bare name of a built-in one, else the path as given."""
    return path.name if path.parent == BUILTIN else str(path)


def read_file(path: Path) -> Document:
    """One file, nothing extended.

    Raises:
        ConfigError: unreadable, too large or not UTF-8 text.
    """
    name = source_name(path)
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read {name}: {error.strerror}", hint="check its path and its permissions") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name} is not a text file in UTF-8", hint="a scenario is a YAML file") from None
    if len(data) > BYTES_MAX:
        raise ConfigError(f"{name} is larger than {BYTES_MAX >> 20} MiB", hint="is it a trace? Give that with --trace")
    return read_yaml(text, name, ours=path.is_relative_to(BUILTIN.parent))
