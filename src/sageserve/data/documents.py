"""Files of settings as documents: reading one, what messages call it, what someone may have meant, and putting one in place.

Knows sizes and encodings, and where the package keeps its own files. Must not know what any key means.
Read next: `yaml_positions.py` for the YAML itself, `data/scenarios/layers.py` and `data/profiles/library.py` for what is read.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
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
        raise ConfigError(f"{name} is not a text file in UTF-8", hint="if it is a scenario, save it as UTF-8") from None
    if len(data) > BYTES_MAX:
        raise ConfigError(f"{name} is larger than {BYTES_MAX >> 20} MiB", hint="is it a trace? Give that with --trace")
    return read_yaml(text, name, ours=path.is_relative_to(BUILTIN.parent))


def write_text(path: Path, text: str, *, check: Callable[[Path], object] | None = None) -> None:
    """Put a file in place, whole or not at all; a file that is there keeps its mode, and a link leads where it did.

    Args:
        path: of the file.
        text: its content.
        check: given the file before it is in place; what it raises keeps it from getting there.

    Raises:
        ConfigError: it cannot be written.
    """
    place = path.resolve()
    folder = place.parent / f".{path.name}.part-{os.getpid()}"
    part = folder / path.name
    try:
        folder.mkdir(mode=0o755)
        part.write_text(text, "utf-8", newline="")
        if check is not None:
            check(part)
        if place.exists():
            shutil.copymode(place, part)
        part.replace(place)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}", hint="choose another place") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Put files by their names in a folder, which is made if needed; each as `write_text` does.

    Raises:
        ConfigError: one of them cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror or error}", hint="choose another place") from None
    for name, text in texts.items():
        write_text(folder / name, text)
