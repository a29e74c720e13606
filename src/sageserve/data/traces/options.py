"""What a user may say about the requests of a run: which files, what in them, which part of it, how much of it.

One value for every command that takes a trace, and part of the key of kept results. Knows no file. Read next:
`requests.py`, which acts on it; `cli/trace_options.py` for the options themselves.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal, TypeAlias

from sageserve.base.errors import TraceError

Expansion: TypeAlias = Literal["even", "poisson"]
"""How the requests of a summed row are spread over its time: at equal distances, or at random."""

Prompts: TypeAlias = Literal["whole", "added"]
"""What a later turn's prompt length counts: all that the engine is sent, or only what the turn adds to the conversation."""

DROPPED_MAX: Final = 0.01


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """Where requests come from and what is done to them, in this order.

    Args:
        files: trace files; none: the scenario's generator.
        history: trace files of what came before, which forecasters know from the start, as `--history`.
        columns: OURS=THEIRS, as `--column`.
        maps: FROM=TO, as `--map`.
        all_at: a time at which every request without one arrives, as `--all-at`.
        rate: requests per second at which requests without a time arrive, as `--rate`.
        expand: how rows that sum up many requests become requests; None refuses them.
        chars_per_token: characters per token of prompts that nobody counted; None refuses them.
        image_tokens: tokens that each image of a prompt adds to it, as `--image-tokens`; None: the prompt counts them already.
        prompts: what prompt lengths of later turns count; `added` puts the conversation so far before them.
        max_dropped: share of rows that may be left out before reading fails.
        drop_outliers: leave out the few requests beyond a silence that fills most of the window.
        keep_gaps: play such a silence.
        end_to_end: lay dated files one after the other, whatever their dates.
        begin: where the window begins, as `--from`: `first`, a duration from the start, or a date.
        until: where it ends, as `--until`.
        time_scale: times are multiplied by it; 0.5 plays the trace twice as fast.
        load: times the rate.
        seed: of what is random in all this; None: the scenario's.
        resampled: last of all, another window that might have been is drawn with this seed; None: it is as it was.
    """

    files: tuple[Path, ...] = ()
    history: tuple[Path, ...] = ()
    columns: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()
    all_at: str | None = None
    rate: float | None = None
    expand: Expansion | None = None
    chars_per_token: float | None = None
    image_tokens: int | None = None
    prompts: Prompts = "whole"
    max_dropped: float = DROPPED_MAX
    drop_outliers: bool = False
    keep_gaps: bool = False
    end_to_end: bool = False
    begin: str | None = None
    until: str | None = None
    time_scale: float = 1.0
    load: float = 1.0
    seed: int | None = None
    resampled: int | None = None

    def refuse_without_files(self) -> None:
        """Refuse options that speak of a file where there is none.

        Raises:
            TraceError: there are such options and no file.
        """
        given = [option for name, option in _OF_FILES.items() if getattr(self, name) != DEFAULTS[name]]
        if given and not self.files:
            raise TraceError(f"{given[0]} speaks of a trace file, and no --trace was given", hint="add --trace FILE")


_OF_FILES: Final = {
    "history": "--history",
    "maps": "--map",
    "columns": "--column",
    "all_at": "--all-at",
    "rate": "--rate",
    "expand": "--expand",
    "chars_per_token": "--chars-per-token",
    "image_tokens": "--image-tokens",
    "prompts": "--prompts",
    "max_dropped": "--max-dropped",
    "drop_outliers": "--drop-outliers",
    "keep_gaps": "--keep-gaps",
    "end_to_end": "--end-to-end",
}
DEFAULTS: Final = {each.name: each.default for each in fields(TraceOptions)}
