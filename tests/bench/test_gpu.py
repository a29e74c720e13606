"""The small engine of `bench.gpu`: its scheduler is the simulator's, its kernels compute a transformer, a fit finds its steps.

The scheduler is tried on a machine whose steps take what a profile says; kernels run where torch and Triton are, on the CPU under
TRITON_INTERPRET=1.
"""

import os
import subprocess
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from bench.gpu import added, power
from bench.gpu.loop import Engine, Sequence, play
from bench.gpu.measure import arriving, lengths, measure, write
from bench.gpu.predict import composed, fit, report, step_times
from bench.gpu.shapes import LIMITS, Limits
from bench.gpu.steps import all_timed, spread
from sageserve.base.config import ProfileSettings
from sageserve.sim.replay import Arrivals, replay_blocks

ROOT: Final = Path(__file__).resolve().parents[2]
RUNS: Final = ROOT / "bench" / "gpu" / "runs" / "h200"
TORCH: Final = os.environ.get("SAGESERVE_TORCH")  # noqa: TID251 # asked for by hand
LIMIT: Final = LIMITS["dense"]
PROFILE: Final = ProfileSettings(
    gpu="virtual",
    tp=1,
    gpus=1,
    iteration_ms=((1, 6.0), (64, 7.0), (256, 9.0), (2048, 60.0)),
    eager_ms=1.5,
    decode_us_per_sequence=11.0,
    kv_ns_per_token=40.0,
    attention_ns_per_token2=0.4,
    kv_tokens=400_000,
    max_sequences=LIMIT.sequences,
    max_batched_tokens=LIMIT.batched,
    source="made up",
)


class Virtual:
    """A machine whose steps take what a profile says, by a clock of its own."""

    def __init__(self, profile: ProfileSettings = PROFILE, rows: int = 10**9) -> None:
        self.profile, self.time, self.rows = profile, 0.0, rows

    def now(self) -> int:
        """Microseconds."""
        return int(self.time + 0.5)

    def wait_until(self, instant: int) -> None:
        """Let time pass."""
        self.time = max(self.time, float(instant))

    def admit(self, sequence: Sequence) -> bool:
        """Whether there is a row left."""
        there = self.rows > 0
        self.rows -= there
        return there

    def release(self, sequence: Sequence) -> None:
        """Give the row back."""
        self.rows += 1

    def run(self, decoding: list[Sequence], pieces: list[tuple[Sequence, int]]) -> None:
        """Let a step pass."""
        parts = {
            "decoding": np.array([len(decoding)]),
            "kv": np.array([sum(one.prompt + one.made for one in decoding)]),
            "prompt": np.array([sum(count for _, count in pieces)]),
            "attention": np.array([sum(count * (one.filled + count / 2) for one, count in pieces)]),
        }
        self.time += 1e3 * float(composed(self.profile, parts)[0])


@pytest.mark.parametrize("rate", [12.0, 30.0])
def test_its_scheduler_is_the_simulators(rate: float) -> None:
    requests = arriving(rate, 20.0, LIMIT)
    steps, looks = play(Engine(Virtual(), LIMIT), requests)
    arrivals = Arrivals(*(np.array([getattr(one, name) for one in requests]) for name in ("arrival", "prompt", "output")))
    played, blocks = replay_blocks(PROFILE, arrivals)
    first = np.array([one.first - one.arrival for one in requests])
    finish = np.array([one.finish - one.arrival for one in requests])
    assert np.abs(played.ttft - first).max() <= len(steps)  # a microsecond of rounding per step
    assert np.abs(played.e2e - finish).max() <= len(steps)
    assert int(blocks.iterations.sum()) == len(steps)
    assert np.median(step_times(PROFILE, blocks)) == pytest.approx(np.median([step.time for step in steps]) / 1e3, abs=2e-3)
    assert sum(look.made for look in looks) <= sum(one.output for one in requests)


def test_steps_make_the_profile_they_were_made_by() -> None:
    machine = Virtual()
    steps = all_timed(machine, LIMIT, PROFILE.kv_tokens)
    table = {
        name: np.array([getattr(step, name) for step in steps], float)
        for name in ("time", "decoding", "kv", "prompt", "attention")
    }
    found = fit(table, LIMIT, PROFILE.kv_tokens)
    assert np.abs(found.off).max() < 1e-3
    assert found.profile.kv_ns_per_token == pytest.approx(PROFILE.kv_ns_per_token, rel=0.01)
    assert found.profile.attention_ns_per_token2 == pytest.approx(PROFILE.attention_ns_per_token2, rel=0.01)


@pytest.mark.parametrize(("count", "mean", "most"), [(1, 700, 4000), (7, 300, 500), (64, 4096, 5000), (128, 128, 5000)])
def test_contexts_are_spread_about_their_mean(count: int, mean: int, most: int) -> None:
    found = np.array(spread(count, mean, most))
    assert len(found) == count
    assert found.max() <= most
    assert found.mean() == pytest.approx(mean, rel=0.01)
    assert count < 7 or np.log(found).std() > 0.2


def test_a_folder_is_written_that_predicts_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measure("dense", Virtual(), PROFILE.kv_tokens, 8.0)
    write(found, {"gpu": "virtual", "torch": "none", "triton": "none"}, tmp_path / "one")
    assert report([tmp_path / "one"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown[3:6]] == ["llama3.1-8b-load0.5", "llama3.1-8b-load0.8", "llama3.1-8b-load1.1"]
    for line in shown[3:6]:
        off, e2e = float(line.split()[5].rstrip("%")), float(line.split()[6].rstrip("%"))
        assert abs(off) < 0.2, line
        assert e2e < 0.2, line
    for line in shown[7:]:  # decoding steps and those with prompts, if it is known what was in them
        assert [abs(float(one.rstrip("%"))) < 0.2 for one in line.split()[2::2]] == [True, True], line


def test_a_machine_that_forgets_takes_as_long_after_a_prompt() -> None:
    alone, late = (power.after(Virtual(), LIMIT, 40, tokens) for tokens in (0, 1024))
    assert alone == pytest.approx(late, abs=1)
    engine = power.holding(Virtual(), LIMIT, 40, 20)
    assert power.sustained(engine, range(5), 0) == pytest.approx(power.sustained(engine, range(5, 10), 900), rel=0.01)
    with pytest.raises(ValueError, match="do not fit into memory"):
        power.holding(Virtual(rows=3), LIMIT, 4, 10)


def test_who_finds_no_memory_waits_and_is_counted() -> None:
    requests = [Sequence(k, 0, 10, 5) for k in range(6)]
    engine = Engine(Virtual(rows=2), Limits(8, 64, 128))
    play(engine, requests)
    assert engine.refused > 0
    assert all(one.finish > 0 for one in requests)
    with pytest.raises(ValueError, match="does not fit into memory"):
        play(Engine(Virtual(rows=0), LIMIT), [Sequence(0, 0, 10, 5)])


def test_lengths_are_the_same_in_every_run() -> None:
    prompt, output = lengths(1000, LIMIT)
    assert (prompt[:3].tolist(), output[:3].tolist()) == (
        lengths(1000, LIMIT)[0][:3].tolist(),
        lengths(1000, LIMIT)[1][:3].tolist(),
    )
    assert prompt.max() + output.max() < LIMIT.context


def test_the_page_shows_what_the_run_in_the_repository_predicts(capsys: pytest.CaptureFixture[str]) -> None:
    assert report([RUNS / "dense", RUNS / "moe"]) == 0
    shown = capsys.readouterr().out
    assert shown in (ROOT / "docs" / "reference" / "engine-model.md").read_text(encoding="utf-8")


def test_the_page_shows_what_adapters_add(capsys: pytest.CaptureFixture[str]) -> None:
    assert added.report(RUNS / "adapters.csv") == 0
    assert capsys.readouterr().out in (ROOT / "docs" / "reference" / "engine-model.md").read_text(encoding="utf-8")


def test_what_adapters_add_is_found_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["rank,decoding,prompt,different,time"]
    for n, p, k in product((1, 32, 100), (0, 512), (0, 1, 4, 20)):
        alone, has = 5000 + 30 * n + 20 * p, k > 0
        lines += [f"0,{n},{p},0,{alone}"] * (not has)
        lines += [f"16,{n},{p},{k},{alone + 400 + 2 * (n + p) + has * (300 + 500 * (p > 0) + 25 * (k - 1))}"]
    (tmp_path / "adapters.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert added.report(tmp_path / "adapters.csv") == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["16", "24", "400.0", "2.0", "300.0", "500.0", "25.0", "0"]


@pytest.mark.extended
@pytest.mark.skipif(TORCH is None, reason="set SAGESERVE_TORCH to a python that has torch and Triton")
@pytest.mark.parametrize("shape", ["tiny-dense", "tiny-moe", "tiny-dense+16"])
def test_kernels_compute_a_transformer(shape: str) -> None:
    """Scores of all steps are those of a transformer written out plainly, in steps as they come and padded to those of graphs.

    Of adapters: all products are those of their tokens one by one.
    """
    assert TORCH is not None
    command = [TORCH, "-m", "tests.bench.gpu_reference", shape]
    said = subprocess.run(
        command, cwd=ROOT, env={"PATH": os.defpath, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=True
    )
    name, *off = said.stdout.split()
    assert name == shape
    assert [float(one) < 1e-5 for one in off] == [True, True]
