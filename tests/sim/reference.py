"""The simulated world again, naively: the page docs/reference/kernel.md with one event per engine iteration.

It has the control surface of the compiled kernel, so one script can drive both. Decisions are derived again from the
page, not imported, and no attention is paid to speed. Knows no file and no strategy. Read next: `reference_fleet.py` for what
there is to decide about, `reference_engine.py` for what happens inside an instance, `cases.py` for what is fed to both.
"""

from math import log

from sageserve.base.records import UNSET
from sageserve.core.fair_share import QUANTUM
from sageserve.core.feed import DIRECT, STEPS
from sageserve.core.route import NEAREST, QUICKEST, THRESHOLD
from sageserve.sim.kernel.state import HELD, REFUSED, SHED
from tests.sim.reference_apart import forget_sent, fuller, land, let_source_go, lose_kept, prefills, ready, work_of
from tests.sim.reference_engine import NO_TIME, Job
from tests.sim.reference_fleet import ReferenceFleet
from tests.sim.reference_ranks import Instance
from tests.sim.reference_rules import asked_of, numbers_at, numbers_of

SCRAPE_PHASE, ARRIVAL_PHASE, BLOCK_PHASE, LANDING_PHASE, ITERATION_PHASE = range(5)
"""Order at one instant. An iteration inside a block comes last: a placement at this very instant may still cut there."""


class Reference(ReferenceFleet):
    """The slow, obvious simulator."""

    def run_until(self, t: int) -> bool:
        """Handle everything before t and the scrape at t; True if it stopped: one is drained, or asked for."""
        self.drained, self.asked = [], False
        while True:
            time, phase, index = self._next_event()
            if time > t or (time == t and phase != SCRAPE_PHASE):
                self.now = t
                return False
            assert time >= self.now
            self.now = time
            if phase == SCRAPE_PHASE:
                self._scrape()
            elif phase == ARRIVAL_PHASE:
                if index < self._alone:
                    self._next_row += 1
                else:
                    self._coming.remove(index)
                self._arrive(self._jobs[index])
                if self.asked:
                    return True
            elif phase == LANDING_PHASE:
                land(self, index)
            else:
                index, rank = self._rank_at(index)
                self._advance(index, rank)
                if self._draining[index] and self._engines[index].inside == 0:
                    self._draining[index] = False
                    self.drained = [index]
                    return True

    def _next_event(self) -> tuple[int, int, int]:
        events = [(self._next_scrape, SCRAPE_PHASE, 0)]
        if self._next_row < self._alone:
            events.append((self._jobs[self._next_row].arrival, ARRIVAL_PHASE, self._next_row))
        events += [(self._jobs[row].arrival, ARRIVAL_PHASE, row) for row in self._coming]
        events += [(sent[0][0], LANDING_PHASE, u) for u, sent in enumerate(self._sent) if sent]
        first, before = min(events), len(self._engines)
        for i, engine in enumerate(self._engines):
            for k, (end, last) in enumerate(engine.ends()):
                if end <= first[0]:
                    first = min(first, (end, BLOCK_PHASE if last else ITERATION_PHASE, i if k == 0 else before + k - 1))
            before += len(engine.ranks) - 1
        return first

    def _rank_at(self, row: int) -> tuple[int, int]:
        """Instance and rank of a place in the order of events: first ranks by instance, then the others of each."""
        if row < len(self._engines):
            return row, 0
        others = [(i, k) for i, engine in enumerate(self._engines) for k in range(1, len(engine.ranks))]
        return others[row - len(self._engines)]

    # ---- arrivals and placement

    def _arrive(self, job: Job) -> None:
        self._count_demand(job)
        model = self._model[job.row]
        if job.prompt + 1 > int(self.setup.context[model]):
            self._put(job, REFUSED)
            self.counts["refused"] += 1
            self._break_off(job)
        elif self._tiers[job.tier].batch and self.setup.feed != DIRECT:
            self._put(job, HELD)
            self._hold(job)
        elif not self._route(job, judged=True):
            self._wait_or_shed(job)

    def _wait_or_shed(self, job: Job) -> None:
        """What was not placed waits at the door, is held for an endpoint that sleeps, or is turned away."""
        model, alike, sleeping = self._model[job.row], self.held[self._cell(job)], self._asleep(job)
        self.asked |= sleeping is not None and alike == 0
        if not self.setup.admission or self._tiers[job.tier].batch:
            self._put(job, HELD)
            self._doors[model].append(job)
            self.counts["waited at the door"] += 1
            self.counts["came again"] += self.setup.admission
        elif sleeping is not None and alike < self.setup.admission_queued * self._engines[sleeping * self.setup.slots].places:
            self._put(job, HELD)
            self._rooms[model].append(job)
            self.counts["held for one that sleeps"] += 1
        else:
            self._shed(job, "shed")
            self.counts["no room to be held"] += sleeping is not None

    def _asleep(self, job: Job) -> int | None:
        """The nearest endpoint that sleeps, if nothing of the job's walk is open."""
        walk = list(self._walk(job))
        if not self.setup.sleeps or any(self._opened(self._endpoints[e]) for e in walk):
            return None
        return next((e for e in walk if self.setup.sleeps[e]), None)

    def _hold(self, job: Job) -> None:
        """Queue a batch job; the best endpoint of its walk may take one at once."""
        queue = self._batch[self._model[job.row]]
        queue.append(job)
        queue.sort(key=lambda one: (one.deadline, one.row))
        choice = [e for e in self._walk(job) if self._opened(self._endpoints[e]) and self._endpoints[e].feeds]
        if choice:
            self._feed(min(choice, key=self._predicted), at_most=1)

    def _shed(self, job: Job, why: str) -> None:
        self._put(job, SHED)
        self.counts[why] += 1
        self._break_off(job)

    def _route(self, job: Job, *, judged: bool = False) -> bool:
        """Place the job on an endpoint of its walk; False when none has an open instance, or it is judged and not let in."""
        choice = ready(self, [e for e in self._walk(job) if self._opened(self._endpoints[e])])
        if not choice:
            return False
        best = min(choice, key=lambda e: fuller(self, e))
        if (rule := self.setup.rules.region) is not None:
            best = min(choice, key=lambda e: rule.ask(numbers_at(self, e, job)))
            self.counts["sent by a rule of the user's"] += best != choice[0]
        elif self.setup.route == NEAREST:
            best = choice[0]
        elif self.setup.route == THRESHOLD:
            best = next((e for e in choice if fuller(self, e) < self.setup.threshold), best)
        elif self.setup.route == QUICKEST:
            best = min(choice, key=lambda e: self._first_token(e, job))
            self.counts["quickest by more than the way"] += best != choice[0]
        if judged and self.setup.admission and not self._lets_in(job, best):
            return False
        self._place(job, best)
        return True

    def _lets_in(self, job: Job, e: int) -> bool:
        """Admission; where tenants share, who is ahead of others finds half of the queue, and who is let in is charged."""
        if not self._shares.shared:
            return self._admits(job, e)
        model = self._model[job.row]
        account = self._shares.accounts[model, job.tier]
        asked = len(account._asked)
        ahead = account.lead(self._shares.owner(job), self.now) > QUANTUM
        self.counts["silent for long"] += len(account._asked) < asked
        self.counts["ahead of others"] += ahead
        if not self._admits(job, e, 0.5 if ahead else 1.0):
            self.counts["turned away for others"] += ahead and self._admits(job, e)
            return False
        self._shares.charge((model, job.tier), job, job.prompt + self._guess[model])
        if self._tiers[job.tier].batch:  # it has its turns from the queue's account, too
            self._charge_turn(job)
        return True

    def _expected(self, e: int) -> float:
        return self._signal(self._endpoints[e].kv, self._expected_busy(e))

    def _expected_busy(self, e: int) -> float:
        one = self._endpoints[e]
        news = (one.offered - one.rate * (self.now - self._last_scrape)) * log(2) / self.setup.half_life
        return one.busy + news / len(self._opened(one))

    def _emptiest(self, e: int, job: Job) -> int:
        if (rule := self.setup.rules.instance) is None:
            return super()._emptiest(e, job)
        return min(self._opened(self._endpoints[e]), key=lambda i: (rule.ask(numbers_of(self, i, job)), i))

    def _first_token(self, e: int, job: Job) -> float:
        """Microseconds until a job's first token would be back from endpoint e."""
        i = self._emptiest(e, job)
        engine, regions = self._engines[i], self.setup.regions
        profile, region = engine.profile, e // (len(self._endpoints) // regions)
        way = int(self.setup.rtt[self._region[job.row], region]) if self.setup.rtt.size else 0
        alone = profile.alone(job.prompt, self._would_find(job, i)) - profile.entry
        queued = engine.unprefilled * profile.per_token * (1.0 / profile.ranks)
        left = 1 - min(max(self._expected_busy(e), 0), 1) / 2
        return way + profile.entry + (alone + queued) / left

    def _charge_turn(self, job: Job) -> None:
        model = self._model[job.row]
        self._shares.charge(model, job, job.prompt + self._mean[model][job.tier])

    def _admits(self, job: Job, e: int, part: float = 1.0) -> bool:
        """Admission, from what is at the endpoint: prompts before the job, requests beyond those that can run together."""
        endpoint, opened = self._endpoints[e], self._opened(self._endpoints[e])
        i = self._emptiest(e, job)
        self._remember(job, i)
        work = work_of(self, job, i)
        inside = sum(self._engines[i].inside for i in endpoint.instances)  # in draining instances, too
        places = sum(self._engines[i].places for i in opened)
        prompts, turns = sum(endpoint.unfinished.values()), max(0, inside - places) * work
        wait = max(prompts, turns) / len(opened)
        self.counts["beyond the cap"] += inside >= self.setup.admission_queued * places
        promised = self._tiers[job.tier].promised(job.prompt)
        patience, most = part * (self.setup.admission_wait * promised), int(part * self.setup.admission_queued * places)
        if (rule := self.setup.rules.admission) is not None:
            found = {"wait": wait, "limit": patience, "in_flight": inside, "most": most, "instances": len(opened)}
            said = rule.ask(asked_of(self, job) | found | {"service": work, "patience": promised})
            self.counts["turned away by a rule of the user's"] += said == 0
            return said != 0
        return wait <= patience and inside < most

    # ---- an instance is lost

    def lose(self, instances: tuple[int, ...]) -> None:
        """Open or draining instances are gone, with what they were doing; what they had is sent again, or broken off."""
        lost: list[Job] = []
        for i in instances:
            if not self._open[i] and not self._draining[i]:
                continue
            engine, endpoint = self._engines[i], self._endpoints[i // self.setup.slots]
            jobs = [job for rank in engine.ranks for queue in (*rank.queues, rank.decoding, rank.prefilling) for job in queue]
            for job in jobs:
                endpoint.unfinished.pop(job.row, None)
            endpoint.placed -= len(jobs)
            lost += jobs
            for job in (job for job in jobs if job.source is not None):
                let_source_go(self, job)
            lost += lose_kept(self, engine, endpoint)
            self._open[i] = self._draining[i] = False
            self._engines[i] = Instance(engine.profile, len(self._tiers) + 1, self._key, prefills=prefills(self, i))
            forget_sent(self, i)
        for job in sorted(lost, key=lambda one: one.row):
            self._send_again(job)

    def _send_again(self, job: Job) -> None:
        row, batch = self.requests[job.row], self._tiers[job.tier].batch
        if row["first"] != UNSET and not batch:
            self._shed(job, "broken off")
            return
        row["first"] = row["instance"] = UNSET
        job.made = job.filled = job.piece = job.blocks_found = 0
        job.passed = None
        self.counts["sent again"] += 1
        if batch and self.setup.feed != DIRECT and job.queue < len(self._tiers):
            self._put(job, HELD)
            queue = self._batch[self._model[job.row]]
            queue.append(job)
            queue.sort(key=lambda one: (one.deadline, one.row))
        elif not self._route(job):
            self._wait_or_shed(job)

    # ---- an iteration ends

    def _advance(self, i: int, k: int) -> None:
        engine, endpoint = self._engines[i], self._endpoints[i // self.setup.slots]
        was_cut = engine.was_cut(k)
        outcome = engine.end_iteration(k, self.now)
        if outcome is None:
            return
        self.counts["ranks kept in step"] += engine.together and sum(rank.busy for rank in engine.ranks) > 1
        self.counts["the slowest rank was overtaken"] += engine.overtaken
        self.counts["blocks ended by a cut"] += was_cut and not outcome.finished
        self._settle(outcome, engine, endpoint)
        self._note_admitted(engine, endpoint)
        if (outcome.finished or outcome.sent) and self._open[i]:
            self._feed(i // self.setup.slots)

    # ---- scrape, feed, promotion

    def _scrape(self) -> None:
        dt = self.now - self._last_scrape
        for endpoint in self._endpoints:
            self._refresh(endpoint, dt)
        for model, means in enumerate(self._mean):
            self._guess[model] = int(sum(means) / len(means) + 0.5)
        self._last_scrape = self.now
        for model in range(self.setup.models):
            self._empty(model)
        for model in range(self.setup.models):
            self._promote(model)
        for e in range(len(self._endpoints)):
            self._feed(e)
        self._next_scrape = self.now + int(self.setup.scrape)

    def open(self, i: int) -> None:
        """Instance i may receive work; whoever waits for an endpoint that slept is let in at once."""
        super().open(i)
        e = i // self.setup.slots
        if any(self.setup.sleeps) and len(self._opened(self._endpoints[e])) == 1:
            self.counts["woken while requests waited"] += bool(sum(self.held))
            self._empty(self._endpoints[e].model)

    def _empty(self, model: int) -> None:
        """Let those in who wait at the doors of a model: those that are held last, and without being judged again."""
        self._doors[model] = self._knock(self._doors[model])
        self._rooms[model] = [job for job in self._rooms[model] if not self._route(job)]

    def _knock(self, door: list[Job]) -> list[Job]:
        """Let those in who wait at a door; who stays. With admission, the first that is not let in ends it, for its owner."""
        if not self.setup.admission:
            return [job for job in door if not self._route(job)]
        turned_away: set[str] = set()
        while heads := self._at_door(door, turned_away):
            model = self._model[door[0].row]
            owner = self._shares.accounts[model].first(heads)
            job = heads[owner]
            if self._is_over(job) or self._route(job, judged=True):
                door.remove(job)
                self.counts["past others at the door"] += bool(turned_away)
            else:
                turned_away.add(owner)
        return door

    def _at_door(self, door: list[Job], turned_away: set[str]) -> dict[str, Job]:
        """The first of each owner of whom nobody was turned away, in order of rows."""
        heads: dict[str, Job] = {}
        for job in door:
            heads.setdefault(self._shares.owner(job), job)
        left = [(owner, job) for owner, job in heads.items() if owner not in turned_away]
        return dict(sorted(left, key=lambda one: one[1].row))

    def _is_over(self, job: Job) -> bool:
        """Give a job up whose deadline has come while it waits; only with admission."""
        over = self.setup.admission and job.deadline <= self.now
        if over:
            self._shed(job, "given up")
        return over

    def _feed(self, e: int, at_most: int = NO_TIME) -> None:
        endpoint = self._endpoints[e]
        queue = self._batch[endpoint.model]
        if not (endpoint.feeds and queue and self._opened(endpoint)):
            return
        if self.setup.feed == STEPS:
            seen = self._predicted(e)
            at_most = min(at_most, 2 if seen < self.setup.two_below else 1 if seen < self.setup.one_below else 0)
        given = 0
        while given < at_most and (self.setup.feed == STEPS or self._predicted(e) < self.setup.one_below):
            job = self._next_job(endpoint.model)
            if job is None:
                break
            self._hand_over(job)
            mean = self._mean[endpoint.model][job.tier]
            endpoint.fed_work += self._place(job, e)
            endpoint.fed_tokens += job.prompt + mean
            given += 1
        self.counts["fed"] += given

    def _heads(self, model: int) -> dict[str, Job]:
        """What each owner has due first, in order of deadlines; what is over is given up on the way."""
        heads: dict[str, Job] = {}
        for job in list(self._batch[model]):
            if (owner := self._shares.owner(job)) not in heads:
                if self._is_over(job):
                    self._batch[model].remove(job)
                else:
                    heads[owner] = job
        return heads

    def _next_job(self, model: int) -> Job | None:
        """The job whose turn it is."""
        heads = self._heads(model)
        if not heads:
            return None
        job = heads[self._shares.accounts[model].first(heads)]
        self.counts["fed before what is due sooner"] += job is not self._batch[model][0]
        return job

    def _hand_over(self, job: Job) -> None:
        self._batch[self._model[job.row]].remove(job)
        self._charge_turn(job)

    def _promote(self, model: int) -> None:
        while heads := self._heads(model):
            turn = heads[self._shares.accounts[model].first(heads)]
            job = next((job for job in heads.values() if self._presses(job)), None)
            if job is None:
                return
            self.counts["promoted out of turn"] += job is not turn
            self._hand_over(job)
            job.queue = len(self._tiers)
            self._route(job)
            self.counts["promoted"] += 1

    def _presses(self, job: Job) -> bool:
        """Whether a job that waits is old or about to be late, and something is open for it."""
        opened = [i for e in self._walk(job) for i in self._opened(self._endpoints[e])]
        if not opened:
            return False
        model = self._model[job.row]
        service = self._engines[opened[0]].profile.work(job.prompt, job.cached, self._mean[model][job.tier])
        age, slack = self.now - job.arrival, job.deadline - self.now
        return age > self.setup.promote_after or slack < self.setup.safety * service
