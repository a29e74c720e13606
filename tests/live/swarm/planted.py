"""Deliberate faults of the live control code, each of which some story must bring to light.

Read next: `test_planted.py`, which plays stories until one does; `tests/parity/live_mutants.py` for those the simulator sees.
"""

from tests.sim.mutants.catalogue import Mutant

PLANTED = (
    Mutant(
        "a drain does not wait for requests",
        "live/control/fleet_view.py",
        "gateway.version < here.closed_version or gateway.has(i) for gateway in heard",
        "gateway.version < here.closed_version for gateway in heard",
    ),
    Mutant(
        "blind is idle",
        "core/safety.py",
        "        if endpoint in self._blind:\n            return Blocked.BLIND\n        if serving",
        "        if serving",
    ),
    Mutant(
        "one below the minimum",
        "core/controller.py",
        "serving - beyond <= least:",
        "serving - beyond < least:",
    ),
    Mutant(
        "results are forgotten when the store is full",
        "live/batches/result_writer.py",
        "            self._some.set()\n            raise",
        "            del self._results[: len(results)]\n            self._some.set()\n            raise",
    ),
    Mutant(
        "old news of a loss is believed",
        "live/control/loop.py",
        "return state[i] not in {State.SERVING, State.DRAINING}",
        "return False",
    ),
    Mutant(
        "a gateway counts from its birth",
        "live/control/gateway_reports.py",
        "        if before is not None:  # the first report of a process is where its counting begins\n"
        "            self._add_counts(before, report)",
        "        self._add_counts(before or Report(0, (), (), (), (), (), 0), report)",
    ),
    Mutant("nobody ends an engine that hangs", "live/control/liveness.py", "elif self._end(i, self._why(i)):", "elif i < 0:"),
    Mutant(
        "closed instances stay in the choice",
        "live/gateway/routing_state.py",
        "(one for one in load.all if one.open and (one.trouble <= now or one.model in self.unwell)),",
        "(one for one in load.all if one.trouble <= now or one.model in self.unwell),",
    ),
    Mutant(
        "erasing does not wait for what runs",
        "live/batches/erasure.py",
        "left += 1  # even if it ends meanwhile",
        "left += 0  # even if it ends meanwhile",
    ),
    Mutant("lost lines are not counted", "live/control/state_files.py", "            self.lost += 1\n", ""),
)
