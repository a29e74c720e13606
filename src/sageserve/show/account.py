"""The account of a run: what was played, the verdict, what happened over time, what was decided and why.

    found = account(read_run(Path("runs/day")))

Everything that `sageserve show` tells, as one record; numbers of the summary are the summary's own. Draws nothing.
Read next: `verdict.py`, `lines.py`, `choices.py`.
"""

from msgspec import Struct

from sageserve.data.results.run_folder import RunFolder
from sageserve.data.results.summary import Summary
from sageserve.show.choices import Choices, choices
from sageserve.show.lines import RunLines, lines_of
from sageserve.show.verdict import Verdict, verdict_of


class Account(Struct, frozen=True):
    """A run told.

    Args:
        summary: as in summary.json.
        verdict: in sentences.
        lines: over the window; None where the folder holds the summary alone.
        choices: what was decided; likewise.
    """

    summary: Summary
    verdict: Verdict
    lines: RunLines | None
    choices: Choices | None


def account(run: RunFolder) -> Account:
    """Tell a run that left all its files."""
    return Account(run.summary, verdict_of(run.summary), lines_of(run), choices(run.journal(), run.scenario))


def short_account(summary: Summary) -> Account:
    """Tell a run of which there is nothing but the summary."""
    return Account(summary, verdict_of(summary), None, None)
