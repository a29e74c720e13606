"""The ten-million week of `o365-week`: generation, simulation with its summary, and the memory of both.

    python -m bench.week

One process, so that its peak is that of the whole command without `--out`. Read next: `run.py`.
"""

import time

from bench.figures import peak_gb, show
from sageserve.cli.kernels import warm_up
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.workload.generate import generate, history
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import Simulation

if __name__ == "__main__":
    warm_up()
    scenario = load_scenario("o365-week")
    began = time.process_time()
    trace = generate(scenario)
    requests, took = len(trace), time.process_time() - began
    show("generate_per_s", requests / took, "requests per CPU second")
    began = time.process_time()
    simulation = Simulation(scenario, trace, earlier=history(scenario))
    del trace
    run = simulation.play()
    played = time.process_time() - began
    summary = summarise(run, played)
    took = time.process_time() - began
    counts = summary.requests
    if counts.unfinished or counts.arrived != requests or counts.arrived != counts.finished + counts.refused:
        raise RuntimeError(f"{counts} does not account for {requests} requests")
    show("week_10m_cpu_s", took, "s")
    show("week_10m_summary_cpu_s", took - played, "s")
    show("week_10m_per_s", requests / took, "requests per CPU second")
    show("week_10m_rss_gb", peak_gb(), "GB")
