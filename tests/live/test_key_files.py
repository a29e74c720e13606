"""Files that are renewed while a process runs are read again once for each time, whatever way they are renewed.

Read next: `src/sageserve/live/key_files.py`; `gateway/test_tls.py` and `gateway/test_engine_tls.py` for what is done with them.
"""

import os
from pathlib import Path

from sageserve.live.key_files import KeyFiles


def test_each_way_to_renew_a_file_is_seen_once(tmp_path: Path) -> None:
    first, second = tmp_path / "a.crt", tmp_path / "a.key"
    for path in (first, second):
        path.write_text("one", "utf-8")
    files = KeyFiles((str(first), None, str(second)))
    assert files.paths == (first, second)

    def anew() -> None:
        second.write_text("another", "utf-8")

    def same_size() -> None:
        os.utime(second, ns=(0, 7))

    def put_in_its_place() -> None:
        (tmp_path / "new").write_text("two", "utf-8")
        os.utime(tmp_path / "new", ns=(0, first.stat().st_mtime_ns))
        (tmp_path / "new").replace(first)

    assert not files.are_others()
    for renew in (anew, same_size, put_in_its_place, first.unlink, first.touch):
        renew()
        assert (files.are_others(), files.are_others()) == (True, False), renew
