"""Who of several processes may write: a lease with epochs, as a state machine of what is read and what came of writes.

    nobody, or a holder that has stopped renewing      -> take it: the next epoch
    ours, and renewed long enough ago                  -> renew it
    ours, and not renewed for `give_up`                -> it is lost
    another's, or an object with a higher epoch        -> it is lost at once

How long a holder has not renewed is measured on the own monotonic clock, since the stored value last changed; stored instants are
never compared with ours. A renewal counts from when it was begun. A lease alone cannot keep a process that stood still from
writing late: each write is bound to the version of the object that was read, so that it comes to nothing once a newer epoch was
written there. Read next: `ladder.py`.
"""

from sageserve.base.units import NEVER, Micros
from sageserve.core.authority.records import LeaseRecord, LeaseTimes


class LeaseElector:
    """One candidate.

    Args:
        me: its name; no two processes have the same, not even one after the other.
        times: how long a lease holds.
    """

    def __init__(self, me: str, times: LeaseTimes | None = None) -> None:
        self._me = me
        self._times = times or LeaseTimes()
        self._record: LeaseRecord | None = None
        self._changed_at: Micros = 0
        self._renewed_at: Micros = -NEVER
        self._held = 0  # our epoch; 0: we hold nothing
        self._epoch_least = 0  # the highest that was seen

    @property
    def epoch(self) -> int:
        """That writes carry; 0: none may be made."""
        return self._held

    @property
    def holder(self) -> str:
        """Who holds it, as last read."""
        return "" if self._record is None else self._record.holder

    def read(self, now: Micros, record: LeaseRecord | None) -> None:
        """Take in what is stored; None: there is no lease."""
        if self._record is None or record is None or _value(record) != _value(self._record):
            self._changed_at = now
        self._record = record
        if record is not None:
            self._epoch_least = max(self._epoch_least, record.epoch)
        if self._held and (record is None or record.holder != self._me or record.epoch != self._held):
            self._held = 0

    def saw_epoch(self, epoch: int) -> None:
        """An object carries an epoch; one above ours ends ours."""
        self._epoch_least = max(self._epoch_least, epoch)
        if epoch > self._held:
            self._held = 0

    def wanted(self, now: Micros, renewed: str) -> LeaseRecord | None:
        """The lease as it should be stored next, bound to the version that was read; None: leave it as it is.

        Args:
            now: the own clock.
            renewed: the instant in words.
        """
        self._lapse(now)
        record = self._record
        if self._held:
            due = now - self._renewed_at >= self._times.every
            return LeaseRecord(self._me, self._held, renewed, record.version if record is not None else "") if due else None
        if record is None:
            return LeaseRecord(self._me, self._epoch_least + 1, renewed)  # one that was deleted does not begin anew
        if record.holder not in {"", self._me} and now - self._changed_at < self._times.length:
            return None
        return LeaseRecord(self._me, self._epoch_least + 1, renewed, record.version)

    def wrote(self, now: Micros, begun: Micros, stored: LeaseRecord) -> None:
        """What was wanted is stored.

        Args:
            now: when that was heard.
            begun: when the write was begun.
            stored: with its new version.
        """
        self._record, self._changed_at = stored, now
        self._held, self._renewed_at = stored.epoch, begun
        if self._held < self._epoch_least:
            self._held = 0
        self._epoch_least = max(self._epoch_least, stored.epoch)

    def let_go(self) -> LeaseRecord | None:
        """The lease as it should be stored when its holder ends, so that another need not wait; None: it is not ours."""
        held, self._held = self._held, 0
        record = self._record
        return None if not held or record is None else LeaseRecord("", held, record.renewed, record.version)

    def may_write(self, now: Micros) -> bool:
        """Whether a write may begin now."""
        self._lapse(now)
        return bool(self._held) and now - self._renewed_at <= self._times.write_within

    def leads(self, now: Micros) -> bool:
        """Whether the lease is ours and not given up."""
        self._lapse(now)
        return bool(self._held)

    def _lapse(self, now: Micros) -> None:
        if self._held and now - self._renewed_at > self._times.give_up:
            self._held = 0


def _value(record: LeaseRecord) -> tuple[str, int, str]:
    return record.holder, record.epoch, record.renewed
