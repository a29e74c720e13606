"""Standard output on the real descriptors: only the answer goes there, and what cannot be written is told.

Read next: `src/sageserve/cli/streams.py`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pytest

from sageserve.cli.streams import READER_GONE

LIST = ("scenario", "list", "--json")  # an answer that needs no kernel
Place = int | IO[bytes]


def sageserve(
    *arguments: str, out: Place = subprocess.PIPE, err: Place = subprocess.PIPE, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "sageserve.cli.main", *arguments],
        stdout=out,
        stderr=err,
        text=True,
        encoding="utf-8",
        env=os.environ | variables,  # noqa: TID251 # a process of this machine
        check=False,
    )


def closing(descriptors: str) -> Sequence[str]:
    """A shell that runs the command with some descriptors closed."""
    return ["sh", "-c", f'exec "$0" -m sageserve.cli.main --version {descriptors}', sys.executable]


def test_what_others_print_on_descriptor_1_is_no_part_of_the_answer() -> None:
    code = (
        "import ctypes, os, subprocess\n"
        "from sageserve.cli.streams import guard\n"
        "guard()\n"
        "ctypes.CDLL(None).puts(b'of a library in C')\n"
        "os.write(1, b'past the stream\\n')\n"
        "subprocess.run(['echo', 'of a child'], check=True)\n"
        "print('the answer: ×')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)
    assert ran.stdout == "the answer: ×\n"
    assert sorted(ran.stderr.splitlines()) == ["of a child", "of a library in C", "past the stream"]


def test_a_reader_that_left_is_not_a_fault() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = sageserve(*LIST, out=writing)
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (READER_GONE, "")


def test_a_full_disk_is_told() -> None:
    with Path("/dev/full").open("wb") as full:
        ran = sageserve(*LIST, out=full)
    assert ran.returncode == 2
    assert "standard output: No space left on device" in ran.stderr


@pytest.mark.parametrize(
    ("happens", "code", "said"),
    [
        ("typer.echo('done')", 0, ""),
        ("raise ConfigError('wrong here', hint='do that')", 2, "error: wrong here\ntry: do that\n"),
        ("raise ModuleNotFoundError('no', name='httpx')", 2, "error: this needs httpx, which is not installed\n"),
        ("1 / 0", 1, "sageserve failed: ZeroDivisionError: division by zero\nThis is a fault of SageServe"),
        ("raise KeyboardInterrupt", 130, ""),
    ],
)
def test_exit_codes_tell_mistakes_from_faults(happens: str, code: int, said: str) -> None:
    program = (
        "import sys, typer\n"
        "from sageserve.base.errors import ConfigError\n"
        "from sageserve.cli import main\n"
        f"def broken() -> None:\n    {happens}\n"
        "main.app.command(name='broken')(broken)\n"
        "sys.argv = ['sageserve', 'broken']\n"
        "main.main()"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == code, ran.stderr
    assert ran.stderr.startswith(said)
    assert bool(ran.stderr) == bool(said)
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("command", [LIST, ("trace", "inspect", "nowhere.csv")])
def test_remarks_that_cannot_be_written_change_nothing(command: tuple[str, ...]) -> None:
    said = sageserve(*command)
    with Path("/dev/full").open("wb") as full:
        ran = sageserve(*command, err=full)
    assert (ran.returncode, ran.stdout) == (said.returncode, said.stdout)


@pytest.mark.parametrize(("closed", "code"), [(">&-", 2), (">&- <&-", 2), ("2>&-", 0), ("2>&- <&-", 0), (">&- 2>&-", 2)])
def test_closed_descriptors_are_told_by_the_exit_code(closed: str, code: int) -> None:
    ran = subprocess.run(closing(closed), capture_output=True, text=True, check=False)
    assert ran.returncode == code
    assert ran.stdout.startswith("sageserve ") == (code == 0)
    assert ("Bad file descriptor" in ran.stderr) == (code == 2 and "2>" not in closed)


def test_an_encoding_without_the_characters_keeps_json_whole() -> None:
    name = "name=Größe ✗ 🙂"
    said = [sageserve("key", "new", name, "--json", PYTHONIOENCODING=one).stdout for one in ("utf-8", "ascii")]
    assert [json.loads(one)["name"] for one in said] == [name, name]
