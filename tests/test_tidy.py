"""The style, checked: sizes, names, docstrings, reasons, and the direction of imports; `test_house.py` has names and rooms.

Each rule is a function from a file to its complaints, tried on a bad sample before it is trusted on the code.
What ruff and mypy can check is left to them. Read next: `docs/why/architecture.md`, CONTRIBUTING.md.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINES_PER_FILE = 400
LINES_PER_FUNCTION = 60
VAGUE_NAMES = {"util", "utils", "common", "helper", "helpers", "manager", "misc", "stuff"}
NOTES_TO_SELF = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.:/-])/(?:work|tmp|root)/")
MISTAKES = {"ConfigError", "MeasurementError", "PlanError", "PluginError", "ResultError", "SageServeError", "TraceError"}
SUPPRESSIONS = re.compile(r"# (?:noqa\b|type: ignore)(?P<rest>.*)")

Rule = Callable[[str, str], Iterator[str]]


def code_files() -> list[Path]:
    return sorted(path for top in ("src", "tests", "bench") for path in (ROOT / top).rglob("*.py"))


def prose_files() -> list[Path]:
    tops = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile", ROOT / "pyproject.toml"]
    data = [path for end in ("*.yaml", "*.yml", "*.json") for path in (ROOT / "src").rglob(end)]
    return sorted([*tops, *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").rglob("*.md"), *data])


def long_files(name: str, text: str) -> Iterator[str]:
    if (lines := len(text.splitlines())) > LINES_PER_FILE:
        yield f"{name}: {lines} lines; split it at {LINES_PER_FILE}"


def long_functions(name: str, text: str) -> Iterator[str]:
    if len(text.splitlines()) <= LINES_PER_FUNCTION:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LINES_PER_FUNCTION:
                yield f"{name}:{node.lineno}: {node.name} has {lines} lines; stop at {LINES_PER_FUNCTION}"


def silent_modules(name: str, text: str) -> Iterator[str]:
    if not re.match(r'"""\S', text) and not ast.get_docstring(ast.parse(text)):
        yield f"{name}: say what the module knows, what it must not do, and where to read next"


def vague_names(name: str, text: str) -> Iterator[str]:
    words = {word for part in Path(name).with_suffix("").parts for word in part.lower().split("_")}
    for word in sorted(words & VAGUE_NAMES):
        yield f"{name}: {word!r} says nothing about what is inside"


def notes_to_self(name: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        if match := NOTES_TO_SELF.search(line):
            yield f"{name}:{number}: {match[0]}: do it, or open an issue"


def machine_paths(name: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        if match := MACHINE_PATHS.search(line):
            yield f"{name}:{number}: {match[0]} exists on one machine only"


def bare_suppressions(name: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        match = SUPPRESSIONS.search(line)
        if match and "#" not in match["rest"]:
            yield f"{name}:{number}: write the reason after a second '#'"


def writes_to_stdout(name: str, text: str) -> Iterator[str]:
    if not name.startswith("src/") or name.startswith("src/sageserve/cli/") or not ("print(" in text or "stdout" in text):
        return
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(func=ast.Name(id="print")) | ast.Attribute(value=ast.Name(id="sys"), attr="stdout"):
                yield f"{name}:{node.lineno}: stdout belongs to the command line; return the text"
            case _:
                pass


def writes_no_numbers_as_json(name: str, text: str) -> Iterator[str]:
    if not name.startswith("src/") or "json.dump" not in text:
        return
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="json"), attr="dumps" | "dump"), keywords=given):
                if not any(each.arg == "allow_nan" and getattr(each.value, "value", True) is False for each in given):
                    yield f"{name}:{node.lineno}: NaN is no JSON: write with msgspec (null), or say allow_nan=False"
            case _:
                pass


def mistakes_without_a_next_step(name: str, text: str) -> Iterator[str]:
    if not name.startswith(("src/sageserve/cli/", "src/sageserve/data/")) or "raise " not in text:
        return
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Raise(exc=ast.Call(func=ast.Name(id=kind), keywords=given)) if kind in MISTAKES:
                if not any(each.arg == "hint" for each in given):
                    yield f"{name}:{node.lineno}: a mistake of a user's says what to do next: hint=..."
            case _:
                pass


BAD_SAMPLES: list[tuple[Rule, str, str]] = [
    (long_files, "src/a.py", "x = 1\n" * (LINES_PER_FILE + 1)),
    (long_functions, "src/a.py", "async def f():\n" + "    x = 1\n" * LINES_PER_FUNCTION),
    (long_functions, "src/a.py", "class A:\n    def f(self):\n" + "        x = 1\n" * LINES_PER_FUNCTION),
    (silent_modules, "src/a.py", "x = 1\n"),
    (vague_names, "src/sageserve/utils/units.py", ""),
    (vague_names, "tests/queue_manager.py", ""),
    (notes_to_self, "src/a.py", "# TO" + "DO: later\n"),
    (machine_paths, "docs/a.md", "see /wo" + "rk/main\n"),
    (machine_paths, "src/a.py", 'PATH = "/tm' + 'p/x"\n'),
    (bare_suppressions, "src/a.py", "import os  # no" + "qa: F401\n"),
    (bare_suppressions, "src/a.py", "f(1)  # type: ig" + "nore[arg-type]\n"),
    (writes_to_stdout, "src/sageserve/sim/run.py", "print(1)\n"),
    (writes_to_stdout, "src/sageserve/sim/run.py", "import sys\nsys.stdout.write('1')\n"),
    (writes_no_numbers_as_json, "src/sageserve/cli/a.py", "json.dumps({})\n"),
    (writes_no_numbers_as_json, "src/sageserve/cli/a.py", "json.dump({}, file, allow_nan=True)\n"),
    (mistakes_without_a_next_step, "src/sageserve/cli/a.py", "raise ConfigError('no') from None\n"),
]
CODE_RULES: list[Rule] = [
    long_files,
    long_functions,
    silent_modules,
    vague_names,
    notes_to_self,
    machine_paths,
    bare_suppressions,
    writes_to_stdout,
    writes_no_numbers_as_json,
    mistakes_without_a_next_step,
]


@pytest.mark.parametrize(("rule", "name", "text"), BAD_SAMPLES)
def test_rule_sees_what_it_is_for(rule: Rule, name: str, text: str) -> None:
    assert list(rule(name, text))


@pytest.mark.parametrize("rule", CODE_RULES)
def test_code_keeps_rule(rule: Rule) -> None:
    files = code_files()
    assert len(files) > 10, "the code was not found"
    complaints = [line for path in files for line in rule(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("rule", [notes_to_self, machine_paths])
def test_prose_keeps_rule(rule: Rule) -> None:
    complaints = [line for path in prose_files() for line in rule(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))]
    assert not complaints, "\n".join(complaints)


def test_every_dependency_says_why() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    project = tomllib.loads(text)["project"]
    wanted = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    assert wanted
    silent = [one for one in wanted if not re.search(re.escape(f'"{one}"') + r",?\s+# \S.{10,}", text)]
    assert not silent, f"write the reason beside: {', '.join(silent)}"


def test_every_exception_to_lint_says_why() -> None:
    lines = (ROOT / "pyproject.toml").read_text("utf-8").splitlines()
    start = lines.index("ignore = [")
    codes = [line for line in lines[start:] if re.match(r'\s+"[A-Z]{1,6}[0-9]{3,4}"', line)]
    assert len(codes) > 5
    silent = [line.strip() for line in codes if not re.search(r"# \S.{10,}", line)]
    assert not silent, f"write the reason beside: {', '.join(silent)}"


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the layers of the package below `folder`/src under the contracts of `folder`/pyproject.toml."""
    program = Path(sys.executable).with_name("lint-imports")
    environment = os.environ | {"PYTHONPATH": str(folder / "src")}  # noqa: TID251  # the copy, not the installed package
    return subprocess.run([str(program), "--no-cache"], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_imports_point_down() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("base", "import sageserve.data", "Imports point down"),
        ("core", "import sageserve.sim", "Imports point down"),
        ("sim", "import sageserve.live", "Imports point down"),
        ("show", "import sageserve.sim", "Imports point down"),
        ("core", "import time", "Base and core are pure"),
        ("base", "import asyncio", "Base and core are pure"),
        ("core/strategies", "from pathlib import Path", "Base and core are pure"),
        ("data/traces", "import sageserve.data.results.journal", "Inside data"),
        ("sim/kernel", "import sageserve.sim.run", "Inside sim"),
        ("show/format.py", "import sageserve.show.page", "No arrow points back"),
        ("live/gateway/downstream.py", "import sageserve.live.gateway.relay", "No arrow points back"),
    ],
)
def test_an_import_that_points_up_or_out_or_back_is_caught(tmp_path: Path, module: str, line: str, contract: str) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path / "src" / "sageserve" / module
    target = target if target.suffix else target / "__init__.py"
    target.write_text(target.read_text("utf-8") + f"\n{line}\n", "utf-8")
    result = lint_imports(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    verdicts = " ".join(result.stdout.split())  # long names are wrapped
    assert re.search(rf"{contract}(?:(?!KEPT|BROKEN).)*BROKEN", verdicts)
