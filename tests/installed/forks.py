"""Commands, each in a process of its own that is forked off one which has imported what most of them need.

    python forks.py CALLS > answers.json

CALLS is a JSON file: words by name. Each writes to real descriptors. Run by the environment of an installed wheel, of which it
plays the program, and imports nothing of the tests. Read next: `test_json.py`.
"""

import importlib
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Final, TypedDict

from sageserve.cli.main import main as sageserve

MOSTLY: Final = ("numpy", "numba", "pydantic", "rich.table", "sageserve.data.scenarios.load", "sageserve.sim.run")


class Answer(TypedDict):
    """What a command left with, and what it wrote."""

    code: int
    out: str
    err: str


def played(words: list[str]) -> Answer:
    """What a command answers."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, Path(os.devnull).open("rb") as nothing:
        child = os.fork()
        if child == 0:
            for number, file in enumerate((nothing, out, err)):
                os.dup2(file.fileno(), number)
            os._exit(_left_with(words))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return {"code": code, "out": out.read().decode("utf-8"), "err": err.read().decode("utf-8")}


def _left_with(words: list[str]) -> int:
    sys.argv = ["sageserve", *words]
    code: object = 0
    try:
        sageserve()
    except SystemExit as left:
        code = left.code
    except BaseException:  # noqa: BLE001 # as an interpreter does
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


def main() -> None:
    """Play all calls, and print an object: answer by name."""
    for name in MOSTLY:
        importlib.import_module(name)
    calls: dict[str, list[str]] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    answers = {name: played(words) for name, words in calls.items()}
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
