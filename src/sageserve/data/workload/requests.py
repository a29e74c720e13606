"""The requests of a scenario: from the files of some options, or generated from its own traffic settings.

Read next: `data/traces/requests.py` for files, `generate.py`.
"""

from sageserve.base.config import Scenario
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.requests import Requests, Watch, changed, requests_of, unwatched
from sageserve.data.workload.generate import generate, history


def requests_for(scenario: Scenario, options: TraceOptions, watch: Watch = unwatched) -> Requests:
    """What a command plays, and the demand before it where that is known.

    Args:
        scenario: that the requests must fit, and that they are generated from where there are no files.
        options: of the command.
        watch: asked for somebody to tell about progress.

    Raises:
        TraceError: a file cannot be read, or an option cannot be followed.
        UnknownName: the files have names the scenario does not define.
        ConfigError: the scenario describes no traffic.
    """
    options.refuse_without_files()
    if options.files:
        return requests_of(options, scenario, watch)
    with watch(f"generate {scenario.name}") as tell:
        made = Requests(generate(scenario, tell), history(scenario))
    return changed(made, options, scenario.seed if options.seed is None else options.seed)
