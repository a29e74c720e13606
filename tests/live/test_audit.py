"""Whatever is done to an audit log shows: to a line, to their order or number; a crash in mid-line costs that line alone."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sageserve.live import audit
from sageserve.live.audit import FOLDER, note, verify

LINES = 12


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A state folder with some acts in its log, written by several at once."""
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda k: note(tmp_path, k, "me", "test", {"k": k, "why": "ä"}), range(LINES)))
    return tmp_path


def file_of(state: Path) -> Path:
    return state / FOLDER / "audit-000001.jsonl"


def test_lines_of_several_writers_are_one_chain(log: Path) -> None:
    found = verify(log)
    assert (found.lines, found.first, found.problem) == (LINES, 1, "")
    lines = [json.loads(line) for line in file_of(log).read_text("utf-8").splitlines()]
    assert sorted(line["facts"]["k"] for line in lines) == list(range(LINES))
    assert [line["number"] for line in lines] == list(range(1, LINES + 1))
    assert found.head == lines[-1]["hash"]
    assert verify(log, lines[4]["hash"]).seen
    assert not verify(log, "0" * 64).seen


@pytest.mark.parametrize(
    ("how", "where"),
    [
        (lambda lines: [*lines[:4], lines[4].replace(b'"who":"me"', b'"who":"he"'), *lines[5:]], 5),
        (lambda lines: [*lines[:4], *lines[5:]], 5),
        (lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]], 5),
        (lambda lines: [*lines[:4], lines[3], *lines[4:]], 5),
        (lambda lines: [*lines[:4], lines[4].replace(b'"act":', b'"act" :'), *lines[5:]], 5),
        (lambda lines: [*lines[:4], b"{}", *lines[4:]], 5),
        (lambda lines: [*lines[:4], b"\xff", *lines[4:]], 5),
        (lambda lines: [lines[0].replace(b'"before":""', b'"before":"x"'), *lines[1:]], 1),
    ],
)
def test_what_was_done_to_it_is_found_with_its_place(log: Path, how: object, where: int) -> None:
    assert callable(how)
    path = file_of(log)
    path.write_bytes(b"".join(line + b"\n" for line in how(path.read_bytes().splitlines())))
    found = verify(log)
    assert f":{where} " in found.problem
    assert found.lines == where - 1


def test_an_end_that_was_cut_off_is_found_by_a_hash_that_was_kept(log: Path) -> None:
    kept = verify(log).head
    path = file_of(log)
    path.write_bytes(b"".join(line + b"\n" for line in path.read_bytes().splitlines()[:-2]))
    found = verify(log, kept)
    assert (found.problem, found.seen) == ("", False)


def test_a_line_that_a_crash_cut_off_is_left_out_and_the_chain_goes_on(log: Path) -> None:
    with file_of(log).open("ab") as file:
        file.write(b'{"number":13,"wall"')
    note(log, 99, "me", "after", {})
    assert (verify(log).lines, verify(log).problem) == (LINES + 1, "")


def test_a_chain_goes_on_in_the_next_file_and_old_ones_may_be_taken_away(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_FILE_MAX", 100)
    note(log, 99, "me", "next", {})
    assert (verify(log).lines, verify(log).problem) == (LINES + 1, "")
    file_of(log).unlink()
    assert (verify(log).lines, verify(log).first, verify(log).problem) == (1, LINES + 1, "")


def test_a_chain_goes_on_from_the_file_before_when_a_crash_cut_off_the_first_line_of_the_next(
    log: Path,
) -> None:
    (log / FOLDER / "audit-000002.jsonl").write_bytes(b'{"number":13,"wall"')
    for _ in range(2):
        note(log, 99, "me", "after", {})
    assert (verify(log).lines, verify(log).problem) == (LINES + 2, "")
    assert len((log / FOLDER / "audit-000002.jsonl").read_bytes().splitlines()) == 2
