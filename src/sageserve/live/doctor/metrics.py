"""Prometheus: is it there, does it know the time, does it keep enough, does it see every instance once? Read next: `facts.py`."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from sageserve.base.units import DAY, SECOND, show_duration
from sageserve.base.urls import shown_url
from sageserve.data.documents import suggest
from sageserve.data.history.collect import spacing
from sageserve.data.history.histograms import bound_of
from sageserve.data.history.names import FRONTS, FrontSignal
from sageserve.data.history.raw import instance_of, label_matches, without_copies
from sageserve.data.history.records import SEEN_LEAST
from sageserve.data.rebuild.render import TOKENS
from sageserve.live.doctor.checks import CheckFinding
from sageserve.live.doctor.facts import ClusterFacts, DoctorTarget
from sageserve.live.prometheus import queries
from sageserve.live.prometheus.server import NotSeen, NotSeenReason, RawAnswer
from sageserve.live.prometheus.sight import PodSight, blind_after, look

CLOCK_MOST: Final = 5.0  # seconds
RETENTION_LEAST: Final = 14  # days: two of every weekday
AGES: Final = (14, 7, 4, 2, 1)  # days that are asked for, longest first
SPACING_MOST: Final = 60 * SECOND
KEEP_BUCKETS: Final = "metric_relabel_configs: []  # of the scrape job: keep all buckets"
RESETS_S: Final = 3600  # seconds in which resets are counted


def prom_reach(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """It answers, and lets us in."""
    answer = facts.prometheus
    if isinstance(answer, NotSeen):
        yield CheckFinding(facts.name, answer.detail, _let_in(facts, answer), "error")


def _let_in(facts: ClusterFacts, answer: NotSeen) -> str:
    settings = facts.settings.prometheus
    assert settings is not None
    match answer.why:
        case NotSeenReason.UNAUTHORIZED | NotSeenReason.FORBIDDEN | NotSeenReason.NO_TOKEN if settings.bearer_file:
            return f"kubectl create token prometheus-reader > {settings.bearer_file}"
        case NotSeenReason.UNAUTHORIZED | NotSeenReason.FORBIDDEN:
            return f"{facts.where}.prometheus.bearer_file: /var/run/secrets/prometheus/token"
        case NotSeenReason.TLS:
            return f"{facts.where}.prometheus.ca_file: /etc/ssl/prometheus-ca.pem"
        case _:
            return f"curl -sS {shown_url(settings.url).rstrip('/')}/-/ready"


def prom_clock(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """Its clock and ours agree."""
    if isinstance(facts.clock, float) and abs(facts.clock - facts.now_s) > CLOCK_MOST:
        ahead = facts.clock - facts.now_s
        said = f"its clock is {abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} this one: one of both is wrong"
        yield CheckFinding(facts.name, said, "sudo chronyc makestep", "error")


def prom_retention(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """It keeps two weeks."""
    assert facts.server is not None
    selector = queries.selector(queries.plain_names(), "")
    for days in AGES:
        found = facts.server.vector(f"count({selector})", facts.now_s - days * DAY / SECOND)
        if isinstance(found, NotSeen):
            return
        if found and found[0].value > 0:
            if days >= RETENTION_LEAST:
                return
            break
    else:
        days = 0
    said = f"samples of engines go back {days} days or a little more; a forecast of weekdays needs {RETENTION_LEAST}"
    yield CheckFinding(facts.name, said, "--storage.tsdb.retention.time=30d", "warn")


def prom_resolution(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """Samples are close to each other, and were."""
    if not isinstance(facts.series, RawAnswer) or not facts.series.series:
        return
    now = spacing(facts.series.series)
    if now > SPACING_MOST:
        said = f"samples are {show_duration(now)} apart: what happens between two is not seen"
        yield CheckFinding(facts.name, said, "scrape_interval: 15s", "warn")
        return
    assert facts.server is not None
    selector = queries.selector(queries.plain_names(), "")
    old = facts.server.raw(selector, 3600, facts.now_s - DAY / SECOND)
    if isinstance(old, RawAnswer) and any(len(one) > 2 for one in old.series) and spacing(old.series) > 1.5 * now:
        before = show_duration(spacing(old.series))
        said = f"samples are {show_duration(now)} apart, and a day ago {before}: old ones are thinned out"
        yield CheckFinding(facts.name, said, "--downsampling.disable", "warn")


def _pods(facts: ClusterFacts, target: DoctorTarget) -> tuple[PodSight, ...]:
    return look(RawAnswer(tuple(facts.raw(target))), facts.now, 1 << 60).pods


def series_match(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """Running, waiting and arrivals are recorded."""
    if not isinstance(facts.series, RawAnswer):
        return
    for target in facts.targets:
        pods = _pods(facts, target)
        if not pods:
            yield CheckFinding(target.name, *_no_series(facts, target), "error")
            continue
        missing = [name for name in ("running", "waiting") if not any(name in pod.matched for pod in pods)]
        if not any("success" in pod.matched for pod in pods) and not _offered(facts, target):
            missing.append("arrivals")
        if missing:
            said = f"{pods[0].engine} shows nothing of {', '.join(missing)}"
            yield CheckFinding(target.name, said, f"--enable-metrics  # of {pods[0].engine}, in the container's args", "error")


def _no_series(facts: ClusterFacts, target: DoctorTarget) -> tuple[str, str]:
    wanted = ", ".join(f'{label}="{value}"' for label, value in target.label_set().items())
    assert isinstance(facts.series, RawAnswer)
    names = sorted({one.labels.get("model_name", "") for one in facts.series.series} - {""})
    asked = target.label_set().get("model_name", target.model)
    near = suggest(asked, names)
    close = next((name for name in names if name.lower() == asked.lower() or f"{name!r}" in near), names[0] if names else asked)
    said = f"no series of an engine has {wanted}{near}"
    return said, f'live.targets.{target.name}.series: {{model_name: "{close}"}}'


def _offered(facts: ClusterFacts, target: DoctorTarget) -> bool:
    assert facts.server is not None
    names = [(alias.metric, alias.model) for alias in FRONTS if alias.signal is FrontSignal.ARRIVALS]
    model = target.label_set().get("model_name", target.model)
    query = " or ".join(f"count({name}{{{label}={queries.quoted(model)}}})" for name, label in names)
    found = facts.server.vector(query, facts.now_s)
    return not isinstance(found, NotSeen) and any(one.value > 0 for one in found)


def series_fresh(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """The newest samples are young."""
    if not isinstance(facts.series, RawAnswer):
        return
    safety = facts.scenario.live.safety.blind_after if facts.scenario.live is not None else 0
    limit = blind_after(safety, spacing(facts.series.series))
    for target in facts.targets:
        ready = set(facts.ready(target))
        old = [pod for pod in _pods(facts, target) if pod.age > limit and (not ready or _pod_name(pod.name) in ready)]
        if old and not ready and (listed := _listed(facts)):
            old = [pod for pod in old if pod.name in listed]  # the others were scaled away
        if old:
            said = f"{len(old)} instances have no sample younger than {show_duration(limit)}, such as {old[0].name} "
            said += f"({show_duration(old[0].age // SECOND * SECOND)})"
            job = next((one.labels.get("job", "") for one in facts.raw(target) if one.instance == old[0].name), "")
            yield CheckFinding(target.name, said, f"scrape_interval: 15s  # of the job {job}, whose targets must be up", "error")


def _listed(facts: ClusterFacts) -> frozenset[str]:
    """Instances that are targets now, whether they can be scraped or not; empty: the server does not say."""
    assert facts.server is not None
    found = facts.server.vector("up", facts.now_s)
    return frozenset() if isinstance(found, NotSeen) else frozenset(instance_of(one.labels) for one in found)


def _pod_name(instance: str) -> str:
    parts = instance.split("/")
    return parts[-2] if len(parts) > 1 else parts[0]


def series_double(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """Every instance is recorded once."""
    for target in facts.targets:
        _, copies = without_copies(one for one in facts.raw(target) if len(one))
        if copies:
            one = copies[0]
            labels = [label for label in one.labels if label != "__name__"] or ["replica"]
            said = f"{one.instance} is recorded {one.count} times, told apart by {', '.join(labels)}"
            yield CheckFinding(target.name, said, f"--query.replica-label={labels[0]}", "error")


def series_cover(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """Ready pods are recorded."""
    if not isinstance(facts.series, RawAnswer):
        return
    for target in facts.targets:
        ready = facts.ready(target)
        recorded = {one.labels.get("pod", "") for one in facts.raw(target)}
        missing = [name for name in ready if name not in recorded]
        if ready and recorded and len(missing) > (1 - SEEN_LEAST) * len(ready):
            said = f"{len(missing)} of {len(ready)} Ready pods are not recorded, such as {missing[0]}"
            command = f"kubectl -n {target.namespace} annotate pod {missing[0]} prometheus.io/scrape=true prometheus.io/port=8000"
            yield CheckFinding(target.name, said, command, "error")


def histogram_shape(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """Lengths have all buckets, and these add up."""
    assert facts.server is not None
    name = "(kserve_|ray_)?vllm[:_]request_prompt_tokens"
    found = facts.server.vector(f"sum by (model_name, le) ({queries.selector(name + '_bucket', '')})", facts.now_s)
    counts = facts.server.vector(f"sum by (model_name) ({queries.selector(name + '_count', '')})", facts.now_s)
    if isinstance(found, NotSeen) or isinstance(counts, NotSeen):
        return
    total = {one.labels.get("model_name", ""): one.value for one in counts}
    buckets: dict[str, dict[float, float]] = {}
    for one in found:
        buckets.setdefault(one.labels.get("model_name", ""), {})[bound_of(one.labels.get("le", ""))] = one.value
    for model, held in buckets.items():
        target = next((t for t in facts.targets if label_matches(model, t.label_set().get("model_name", ""))), None)
        if target is None:
            continue
        finite = sorted(bound for bound in held if np.isfinite(bound))
        missing = [bound for bound in TOKENS if finite and bound <= finite[-1] and bound not in finite]
        last, count = held.get(float("inf"), 0.0), total.get(model, 0.0)
        if missing or not finite:
            said = (
                f"lengths are recorded without the bounds {', '.join(f'{bound:g}' for bound in missing[:5])}: tails are guessed"
            )
            yield CheckFinding(target.name, said, KEEP_BUCKETS, "warn")
        elif abs(last - count) > 0.01 * count + 100:
            said = f"the last bucket holds {last:,.0f} requests, and the count says {count:,.0f}"
            yield CheckFinding(target.name, said, KEEP_BUCKETS, "warn")


def counter_reset(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """Counters begin anew only with containers."""
    assert facts.server is not None
    name = "(kserve_|ray_)?vllm[:_]prompt_tokens_total"
    query = f"sum by (model_name) (resets({queries.selector(name, '')}[{RESETS_S}s]))"
    found = facts.server.vector(query, facts.now_s)
    if isinstance(found, NotSeen):
        return
    seen = {one.labels.get("model_name", ""): round(one.value) for one in found}
    for target in facts.targets:
        resets = seen.get(target.label_set().get("model_name", target.model), 0)
        pods = facts.pods(target)
        restarts = sum(status.number("restartCount") or 0 for pod in pods for status in pod.parts("status", "containerStatuses"))
        if pods and resets > restarts:
            said = f"counters began anew {resets} times in an hour, containers {restarts} times: the engine dies inside"
            yield CheckFinding(target.name, said, f"kubectl -n {target.namespace} logs {pods[0].name} --previous", "info")
