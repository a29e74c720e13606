"""Tenants that share the naive world: whose a job is, and the accounts of `core/fair_share.py`, which live processes keep too.

Read next: `reference.py`, which asks; docs/reference/kernel.md, "Tenants that share".
"""

from collections import defaultdict

from sageserve.core.fair_share import FairShare
from sageserve.sim.kernel.rows.shares import Sharers
from tests.sim.reference_engine import Job


class Shares:
    """Accounts by model, of the batch queue, and by model and tier, of the front door.

    Args:
        sharers: who shares; None: nobody, and everything is one owner's.
    """

    def __init__(self, sharers: Sharers | None) -> None:
        self.shared = sharers is not None
        self._owners = [] if sharers is None else sharers.owner.tolist()
        self._weights = [1.0] if sharers is None else sharers.weights.tolist()
        self.accounts: defaultdict[object, FairShare] = defaultdict(FairShare)

    def owner(self, job: Job) -> str:
        """Whose a job is."""
        return str(self._owners[job.row]) if self.shared else "0"

    def charge(self, account: object, job: Job, tokens: float) -> None:
        """Take down what an owner is given."""
        owner = self.owner(job)
        self.accounts[account].charge(owner, self._weights[int(owner)], tokens)
