"""An application-level autoscaling policy for Ray Serve: its own rule, and never fewer replicas than SageServe would have.

    autoscaling_policy:
      policy_function: sageserve.live.ray.policy:AtLeast
      policy_kwargs: {leader: "http://watch:8110", fleet: production, targets: {LLMDeployment: chat}}

Ray's rule goes on deciding, and Ray keeps bounds, delays and factors of each deployment; what is heard is a floor below its
number. While nothing is heard, or the leader is blind, nothing shrinks, for `hold_s`; after that Ray's rule is alone. It runs in
Ray's controller ten times a second, so that it waits for nobody: a thread asks now and then. Ray takes this file as it is to
its controller, which need not have SageServe: it uses the standard library and Ray alone. Read next: `live/scaler/table.py`,
which is what it hears; docs/how-to/ray-serve.md.
"""

import base64
import http.client
import json
import logging
import re
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

_LOG = logging.getLogger("ray.serve")
EVERY_S = 2.0
PATIENCE_S = 5.0
LARGEST = 4 << 20  # bytes
LARGEST_NUMBER = 1 << 53  # of a whole number: what no float holds is none
HOLD_S = 6 * 3600.0
LONGEST_S = 3600.0  # that any table is believed, whoever wrote it


class AtLeast:
    """What Ray asks.

    Args:
        leader: URL of `sageserve watch`, where its metrics are; a user and a password in it are sent, and never shown.
        targets: name of the target in its scenario, by name of the deployment; others are Ray's alone.
        hold_s: for how long nothing shrinks while nothing is known.
        fleet: name of that scenario, and tables of others are not believed; empty: whichever is there.
    """

    def __init__(self, leader: str, targets: Mapping[str, str], hold_s: float = HOLD_S, fleet: str = "") -> None:
        url, self._user = _without_user(leader)
        self._url = url.rstrip("/") + "/scaler"
        self._fleet = fleet
        self._targets = dict(targets)
        self._hold_s = hold_s
        self._table: dict[str, Any] = {}
        self._heard_at = -float("inf")  # when the table was asked for
        self._known_at: dict[str, float] = {}  # by deployment, when a count was last known
        self._asked_at = -float("inf")
        self._asks: threading.Thread | None = None
        self._why = ""

    def __call__(self, contexts: Mapping[Any, Any]) -> tuple[dict[Any, float], dict[Any, dict[str, Any]]]:
        """Replicas of each deployment of the application, and nothing that Ray is to remember."""
        now = self._now()
        self._ask(now)
        return {key: self._wanted(one, now) for key, one in contexts.items()}, {}

    def _wanted(self, context: Any, now: float) -> float:  # noqa: ANN401 # Ray's
        own = self._own(context)
        target = self._targets.get(context.deployment_name)
        if target is None:
            return own
        floor = self.floor(target, now)
        known_at = self._known_at.setdefault(context.deployment_name, now)
        if floor is None:
            return max(own, context.target_num_replicas) if now - known_at <= self._hold_s else own
        self._known_at[context.deployment_name] = now
        return max(own, floor)

    def floor(self, target: str, now: float) -> int | None:
        """Instances that a target should have; None: that is not known."""
        told = self._table.get("targets", {}).get(target)
        if told is None or told.get("count") is None or self._too_old(told, now):
            return None
        return int(told["count"])

    def _too_old(self, told: Mapping[str, Any], now: float) -> bool:
        age_s = max(0.0, told.get("age_s", 0.0)) + now - self._heard_at
        return bool(age_s > min(self._table.get("limit_s", 0.0), LONGEST_S))

    def _own(self, context: Any) -> float:  # noqa: ANN401 # Ray's
        """What Ray's usual rule wants."""
        from ray.serve.autoscaling_policy import replica_queue_length_autoscaling_policy

        return float(replica_queue_length_autoscaling_policy(context)[0])

    def _now(self) -> float:
        return time.monotonic()  # noqa: TID251 # Ray's process has no clock of ours

    def _ask(self, now: float) -> None:
        """Have a thread ask, where the last one has ended and it is time."""
        if now - self._asked_at < EVERY_S or (self._asks is not None and self._asks.is_alive()):
            return
        self._asked_at = now
        self._asks = threading.Thread(target=self.hear, args=(now,), daemon=True)
        self._asks.start()

    def hear(self, asked_at: float) -> None:
        """Ask the leader once."""
        try:
            question = urllib.request.Request(self._url)  # noqa: S310 # the operator's own URL
            if self._user:
                question.add_unredirected_header("Authorization", f"Basic {base64.b64encode(self._user).decode()}")
            with urllib.request.urlopen(question, timeout=PATIENCE_S) as answer:  # noqa: S310 # as above
                table = _read(answer.read(LARGEST + 1))
        except (OSError, ValueError, http.client.HTTPException, RecursionError) as error:
            self._say(f"{self._url} is not heard: {str(error) or type(error).__name__}")
            return
        if self._fleet and table.get("fleet") != self._fleet:
            self._table = {}
            self._say(f"{self._url} answers for fleet {table.get('fleet')}, and this is {self._fleet}")
            return
        self._table, self._heard_at = table, asked_at
        self._say("; ".join(self._troubles(asked_at)))

    def _troubles(self, now: float) -> Iterator[str]:
        """Why what is heard says nothing of a target, for each of which that is so."""
        told = self._table["targets"]
        for target in dict.fromkeys(self._targets.values()):
            one = told.get(target)
            if one is None:
                known = ", ".join([*told][:20]) or "none"
                yield f"{self._url} tells nothing of target {target}: it is misspelt, or has no `keda: true`; told are {known}"
            elif one.get("count") is None:
                yield f"target {target} is not known: {one.get('why') or 'no reason was given'}"
            elif self._too_old(one, now):
                yield f"what was seen for target {target} is too old"

    def _say(self, why: str) -> None:
        """Into the log, where it is another reason than before; the same with another age is none."""
        if re.sub("[0-9]+", "", why) != re.sub("[0-9]+", "", self._why):
            held = f"; what has no count meanwhile does not shrink, for {self._hold_s / 3600:g} h at most"
            _LOG.warning("SageServe: %s", f"{why}{held}" if why else f"{self._url} is heard")
        self._why = why


def _without_user(url: str) -> tuple[str, bytes]:
    """A URL, and USER:PASSWORD that stood in it."""
    scheme, colon, rest = url.partition("://") if "://" in url else ("", "", url)
    user, _, place = rest.rpartition("@")
    return f"{scheme}{colon}{place}", urllib.parse.unquote_to_bytes(user)


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _read(page: bytes) -> dict[str, Any]:
    """A table.

    Raises:
        ValueError: it is none.
    """
    if len(page) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
    table: Any = json.loads(page, parse_constant=_refuse)
    targets = table.get("targets") if isinstance(table, dict) else None
    if not isinstance(targets, dict) or not all(isinstance(one, dict) for one in targets.values()):
        raise ValueError("it is no table of a leader")
    numbers = [table.get("limit_s"), *(one.get("age_s", 0.0) for one in targets.values())]
    counts = [one.get("count") for one in targets.values() if one.get("count") is not None]
    whole = all(type(one) in {int, float} for one in numbers) and all(type(one) is int for one in counts)
    if not whole or any(type(one) is int and abs(one) > LARGEST_NUMBER for one in (*numbers, *counts)):
        raise ValueError("its numbers are none")
    return dict(table)
