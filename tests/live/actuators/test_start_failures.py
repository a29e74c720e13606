"""Pauses grow while starts of a pool fail, end with the first that serves, and are no other pool's."""

from sageserve.base.units import MINUTE, SECOND
from sageserve.live.actuators.start_failures import StartFailures


def test_pauses_double_up_to_a_limit_and_end_with_success() -> None:
    failures = StartFailures()
    seen = []
    for _ in range(40):
        seen.append(failures.pause("a"))
        failures.failed("a", "exited with code 1: out of memory (logs/a.log)")
    assert seen[:4] == [0, SECOND, 2 * SECOND, 4 * SECOND]
    assert seen[-1] == 10 * MINUTE
    assert failures.pause("b") == 0
    (told,) = failures.told()
    assert "out of memory" in told
    assert "40 starts failed in a row" in told
    failures.failed("b", "exited with code 2: the port is taken")
    assert len(failures.told()) == 2
    assert failures.told(2) == (told,), "a start that failed once may be a stroke of bad luck"
    failures.served("b")
    failures.served("a")
    assert failures.pause("a") == 0
    assert failures.told() == ()
