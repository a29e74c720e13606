"""A container as runtimes make one, without a runtime: a root that nobody can write to, a network of its own, one user.

    unshare --net --mount python -m tests.live.kubernetes.empty_root ROOT CONTAINER.json

CONTAINER.json is `Container`. stdout: one JSON line, `Ended`. Changes mounts, so that it must have its own.
Read next: `test_image.py`.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path

USER = 65532


@dataclass
class Container:
    """What is to run: words, its environment, folders that it may read or write, and the page that says that it is well."""

    words: list[str]
    env: dict[str, str]
    reads: dict[str, str] = field(default_factory=dict)  # folder there by folder here
    writes: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)  # another process, outside the root and in its network
    well: str = ""  # URL; then it is told to end
    patience_s: float = 60.0


@dataclass
class Ended:
    """What became of it: exit code, what it said, and the last answer of the page."""

    code: int
    stdout: str
    stderr: str
    well: str


def mounted(root: Path, one: Container) -> None:
    """Make the file system that it sees."""
    devices = ["null", "zero", "random", "urandom"]
    for place in ["proc", "dev", *(name.lstrip("/") for name in [*one.writes, *one.reads.values()])]:
        (root / place).mkdir(parents=True, exist_ok=True)
    mount("--bind", root, root)
    mount("-o", "remount,bind,ro,nosuid", root)
    mount("-t", "proc", "proc", root / "proc")
    mount("-t", "tmpfs", "dev", root / "dev")
    for name in devices:
        (root / "dev" / name).touch()
        mount("--bind", f"/dev/{name}", root / "dev" / name)
    for name in one.writes:
        mount("-t", "tmpfs", "-o", f"uid={USER},gid={USER},mode=770", "state", root / name.lstrip("/"))
    for here, there in one.reads.items():
        mount("--bind", here, root / there.lstrip("/"))
        mount("-o", "remount,bind,ro", root / there.lstrip("/"))


def mount(*words: "str | Path") -> None:
    subprocess.run(["/usr/bin/mount", *map(str, words)], check=True)


def answer(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as found:  # noqa: S310 # of this machine
            return f"{found.status} {found.read(200).decode()}"
    except OSError as error:
        return str(error)


def run(root: Path, one: Container) -> Ended:
    """Run it to its end, or until the page is well and it has been told to end."""
    begun = [
        str(shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin")),
        f"--userspec={USER}:{USER}",
        str(root),
        *one.words,
    ]
    with subprocess.Popen(begun, env=one.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said = ""
        for _ in range(round(10 * one.patience_s) if one.well else 0):
            if process.poll() is not None or said.startswith("200"):
                break
            said = answer(one.well)
            time.sleep(0.1)
        if one.well:
            process.send_signal(signal.SIGTERM)
        try:
            stdout, stderr = process.communicate(timeout=one.patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
        return Ended(process.returncode, stdout, stderr, said)


def main() -> None:
    """See above."""
    root, one = Path(sys.argv[1]), Container(**json.loads(Path(sys.argv[2]).read_text("utf-8")))
    subprocess.run(["/usr/sbin/ip", "link", "set", "lo", "up"], check=True)
    mount("--make-rprivate", "/")
    mounted(root, one)
    other = subprocess.Popen(one.beside, stderr=subprocess.DEVNULL) if one.beside else None
    try:
        print(json.dumps(asdict(run(root, one)), allow_nan=False))  # noqa: T201 # the result
    finally:
        if other is not None:
            other.kill()
            other.wait()


if __name__ == "__main__":
    main()
