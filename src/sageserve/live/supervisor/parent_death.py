"""Ties a child's life to the supervisor's; run as a script, without the package, so that it costs little.

    python -I -S parent_death.py run SUPERVISOR PROGRAM ARGUMENT...
        asks Linux to kill this process when the supervisor dies, then becomes the program, to which a hang-up is nothing
    python -I -S parent_death.py watch
        reads `+group` and `-group` lines until the supervisor dies (end of input), then kills every process group that is left

The first is exact but holds for one process; the second reaches what that process started itself. Imports nothing but the
standard library. Read next: `children.py`.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
NOT_FOUND = 127


def run(supervisor: int, argv: list[str]) -> None:
    """Become the program, leashed to the supervisor."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it means `reload` to the supervisor, and would end anyone else
    if os.getppid() != supervisor:  # it died before that was asked for
        sys.exit(1)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 # no shell is wanted
    except OSError as error:
        sys.stderr.write(f"cannot run {argv[0]}: {error.strerror}\n")
        sys.exit(NOT_FOUND)


def watch() -> None:
    """Remember process groups; when the input ends, kill those that are left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to handle
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except OSError:  # it is gone already
            continue


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(int(sys.argv[2]), sys.argv[3:])
    else:
        watch()
