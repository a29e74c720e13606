"""What a run did not record is taken as is usual for its engine, and only that.

Read next: `src/sageserve/sim/calibration/anchor.py`.
"""

from dataclasses import replace
from pathlib import Path

from sageserve.data.measured.files import choose, read_measured
from sageserve.data.measured.runs import MeasuredRun
from sageserve.sim.calibration.anchor import with_usual_limits
from sageserve.sim.calibration.coefficients import blank

ROWS = """experiment,model,gpu,tp,engine,max_num_seqs,max_num_batched_tokens,chunked_prefill,in_mean,out_mean
bare,m,h100,1,sglang 0.5.9,,,,10,10
said,m,h100,1,sglang 0.5.9,64,512,false,10,10
whole,m,h100,1,trtllm 1.0,,512,,10,10
unknown,m,h100,1,engine of mine,,,,10,10
"""


def run(folder: Path, name: str) -> MeasuredRun:
    (folder / "experiments.csv").write_text(ROWS)
    return choose(read_measured(folder), name)


def test_what_was_not_recorded_is_as_usual_and_told(tmp_path: Path) -> None:
    found = with_usual_limits(run(tmp_path, "bare"))
    profile = blank(found, 100_000)
    assert (profile.max_sequences, profile.max_batched_tokens, profile.chunked, profile.is_mixed) == (2048, 8192, True, False)
    assert any("as usual for sglang 0.5.9: max_sequences, max_batched_tokens, chunked" in note for note in found.notes)
    assert not any("taken as 256" in note for note in found.notes)
    keeps = blank(with_usual_limits(run(tmp_path, "whole")), 100_000)
    assert (keeps.chunked, keeps.is_mixed, keeps.evicts) == (False, True, False)


def test_what_was_recorded_stays(tmp_path: Path) -> None:
    profile = blank(with_usual_limits(run(tmp_path, "said")), 100_000)
    assert (profile.max_sequences, profile.max_batched_tokens, profile.chunked, profile.is_mixed) == (64, 512, False, False)
    unknown = run(tmp_path, "unknown")
    assert with_usual_limits(unknown) == unknown
    nameless = replace(unknown, engine="")
    assert with_usual_limits(nameless) == nameless
