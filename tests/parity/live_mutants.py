"""Deliberate faults of the live plane, each of which makes a fleet do other things than its simulation said.

Read next: `test_live_mutants.py`, which shows that the comparison with the simulator sees each of them;
`tests/sim/mutants/catalogue.py` for those of the kernel and of the rules that both worlds share.
"""

from tests.sim.mutants.catalogue import Mutant

QUEUE = "live/control/batch_queue.py"
VIEW = "live/control/fleet_view.py"
ROUTING = "live/gateway/routing_state.py"
DOOR = "live/gateway/door_queue.py"
REPORTS = "live/control/gateway_reports.py"

LIVE_MUTANTS = (
    Mutant(
        "the feed bands are swapped",
        VIEW,
        'self.endpoints["one_below"], self.endpoints["two_below"] = scenario.batch.one_below, scenario.batch.two_below',
        'self.endpoints["two_below"], self.endpoints["one_below"] = scenario.batch.one_below, scenario.batch.two_below',
    ),
    Mutant(
        "a promoted job is not routed",
        QUEUE,
        "self._urgent(model)) is not None:\n            self._launch(model, ANYWHERE, turn)",
        "self._urgent(model)) is not None:\n            self._launch(model, 0, turn)",
    ),
    Mutant("quickest goes however far", ROUTING, "way = self.ways[region][self.region_of(e)] + profile", "way = profile"),
    Mutant(
        "quickest does not see what it sent", ROUTING, "(target.unfinished + target.unfinished_there)", "target.unfinished_there"
    ),
    Mutant("quickest takes the first of all", ROUTING, "times.index(min(times))", "0"),
    Mutant("the limit of the wait is ignored", ROUTING, "is_admitted(one.wait, ", "is_admitted(0.0, "),
    Mutant(
        "any number of requests may be in flight",
        ROUTING,
        "self.admission.queued * load.sequences)",
        "2**40)",
    ),
    Mutant(
        "what was sent since the last table is not in the queue",
        ROUTING,
        '        column["backlog"] += one.prefill\n',
        "",
    ),
    Mutant(
        "a client that comes is not offered",
        QUEUE,
        "        self._offer(message.region, message.model, message.tier)\n",
        "",
    ),
    Mutant("a job that comes is not offered", QUEUE, "            self._take_in(model)\n", ""),
    Mutant(
        "a job that comes is offered to the nearest endpoint",
        QUEUE,
        "e = pick_feed(self._kind, self._half_life, self._view.endpoints, walk, 0, len(walk))",
        "e = first_open(self._view.endpoints, walk, 0, len(walk))",
    ),
    Mutant(
        "a job that comes opens the door for all",
        QUEUE,
        "self._feed_some(e, 1) > 0",
        "self._feed_some(e, NEVER) > 0",
    ),
    Mutant(
        "a place that came free stays free until the next scrape",
        QUEUE,
        "self._view.freed > self._seen_freed",
        "self._view.freed < self._seen_freed",
    ),
    Mutant("a scrape feeds nobody", QUEUE, "            self._feed_endpoint(e)\n", "            pass\n"),
    Mutant("what was fed since the scrape is forgotten", QUEUE, "note_fed(row, work, ", "note_fed(row, 0.0, 0 * "),
    Mutant(
        "a job's service is judged by any endpoint",
        QUEUE,
        "        e = first_open(self._view.endpoints, walk, 0, len(walk))\n        if e < 0:",
        "        e = first_open(self._view.endpoints, np.arange(len(self._view.endpoints)), 0, len(self._view.endpoints))\n"
        "        if e < 0:",
    ),
    Mutant(
        "who waited too long is served all the same",
        QUEUE,
        "is_over(first.deadline, self._now())",
        "is_over(first.deadline, 0)",
        first=43,
    ),
    Mutant(
        "answers of a draining instance are places that came free",
        ROUTING,
        "if target.open and now",
        "if now",
        first=105,
    ),
    Mutant(
        "mean lengths are learnt with every table",
        ROUTING,
        "            self._learn_lengths()\n        self._take_seats",
        "        self._learn_lengths()\n        self._take_seats",
        first=64,
    ),
    Mutant(
        "who is held stays held when one opens",
        DOOR,
        "for e in one.walk) and waiter.let_in():",
        "for e in ()) and waiter.let_in():",
    ),
    Mutant(
        "only the nearest endpoint lets the held in",
        DOOR,
        "any(self._routing.loads[e].targets for e in one.walk)",
        "any(self._routing.loads[e].targets for e in one.walk[:1])",
    ),
    Mutant(
        "the last that came is let in first",
        DOOR,
        "row for row in table.asleep}\n        failed = {e for e, row in self._rows.items() if e in before and row.failures > "
        "before[e].failures}\n        for waiter, one in list(self._held.items()):",
        "row for row in table.asleep}\n        failed = {e for e, row in self._rows.items() if e in before and row.failures > "
        "before[e].failures}\n        for waiter, one in reversed(list(self._held.items())):",
    ),
    Mutant(
        "any number may be held", DOOR, "alike * self._routing.gateways >= most", "alike * self._routing.gateways < 0", first=84
    ),
    Mutant(
        "one more may be held than has room", DOOR, "self._routing.gateways >= most", "self._routing.gateways > most", first=84
    ),
    Mutant("who was let in is held on in the count", DOOR, "self._cells[one.cell] -= 1", "self._cells[one.cell] -= 0"),
    Mutant("nobody is told of the first that waits", DOOR, "        if before == 0:\n", "        if before < 0:\n"),
    Mutant("who waits is added to who waited", REPORTS, "self.held[one.cell] -= one.requests", "self.held[one.cell] -= 0"),
)
