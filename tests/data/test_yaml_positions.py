"""YAML with places: lines, the dialect, and hostile files."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sageserve.data import yaml_positions
from sageserve.data.yaml_positions import Value, read_value, read_yaml, write_yaml

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**62), 2**62), st.floats(allow_nan=False, allow_infinity=False), words
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(words, values, max_size=5))
def test_what_is_written_reads_back(value: dict[str, Value]) -> None:
    read = read_yaml(write_yaml(value), "x")
    assert not read.complaints
    assert read.values == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e7", 10_000_000),
        ("10_000", 10_000),
        ("1.5", 1.5),
        ("yes", "yes"),
        ("12:30", "12:30"),
        ("2024-11-04", "2024-11-04"),
        ("'5'", "5"),
        ("~", None),
        ("true", True),
        (".nan", ".nan"),
        ("1e999", "1e999"),
        ("[1, {a: 2h}]", [1, {"a": "2h"}]),
        ("98.32/h", "98.32/h"),
        ("", None),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: Value) -> None:
    assert read_value(text) == value


def test_every_value_knows_its_line() -> None:
    read = read_yaml("a: 1\nb:\n  c: {d: 2}\n  e:\n    - 3\n", "f.yaml")
    where = {".".join(map(str, keys)): str(place) for keys, place in read.places.items() if keys}
    assert where == {
        "a": "f.yaml:1",
        "b": "f.yaml:2",
        "b.c": "f.yaml:3",
        "b.c.d": "f.yaml:3",
        "b.e": "f.yaml:4",
        "b.e.0": "f.yaml:5",
    }


LAUGHS = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{', '.join(f'*{old}' for _ in range(10))}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: a: given twice, first in line 1"),
        ("a: [1,\nb: }\n", "f.yaml:2: not valid YAML"),
        ("a:\tb\n\t- c\n", "f.yaml:"),
        ("- 1\n", "f.yaml:1: a scenario is a mapping"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: not valid YAML"),
        ("a: !!python/object/apply:os.system [x]\n", "tag '!!python/object/apply:os.system'"),
        ("a: !mine x\n", "cannot read 'x'"),
        ("? [a]\n: 1\n", "a key must be a word"),
        ("a: &x [*x]\n", "levels"),
        ("[" * 20_000, "nested too deeply"),
        ("a: \0\n", "not valid YAML"),
        ('a: "\\ud800"\n', "cannot read"),
        (LAUGHS, "more than 100000 values"),
    ],
)
def test_bad_yaml_is_a_complaint_with_its_place(text: str, complaint: str) -> None:
    found = [str(one) for one in read_yaml(text, "f.yaml").complaints]
    assert len(found) == 1
    assert complaint in found[0]


def nodes(text: str, loader: type) -> object:
    """What a loader makes of a text: tags, values and lines."""

    def plain(node: object) -> object:
        if isinstance(node, yaml.Node):
            return node.tag, plain(node.value), node.start_mark.line
        return [plain(one) for one in node] if isinstance(node, list | tuple) else node

    return plain(yaml.compose(text, Loader=loader))


def test_both_loaders_make_the_same_of_what_we_ship(repo_root: Path) -> None:
    files = sorted((repo_root / "src/sageserve/data").rglob("*.yaml"))
    assert len(files) > 5
    for text in [path.read_text("utf-8") for path in files]:
        assert nodes(text, yaml_positions._QuickLoader) == nodes(text, yaml_positions._Loader)


def test_an_empty_file_is_an_empty_mapping() -> None:
    assert read_yaml("# nothing\n", "f.yaml").values == {}
