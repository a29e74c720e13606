"""Names of a file meet names of a scenario: mapped, refused with a line to paste, or filled by seeded shares.

Read next: `tests/data/traces/test_read.py`.
"""

from pathlib import Path

import numpy as np
import pytest

from sageserve.base.config.traffic import AssignSettings
from sageserve.base.errors import TraceError, UnknownName
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.read import read_trace
from tests.data.scenes import scenario
from tests.data.traces.test_read import GENERIC, Write, model_names, region_names, tier_names


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file under a name that says nothing about its format."""

    def to_file(content: str | bytes) -> Path:
        path = tmp_path / "trace.data"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return to_file


class TestNames:
    def test_names_become_the_scenarios_codes(self, write: Write) -> None:
        path = write(GENERIC + "1,small,niw,west,1,1\n2,big,iw-f,east,1,1\n")
        trace, _ = read_trace(path, scenario())
        assert trace.names.models == ("big", "small")
        assert model_names(trace) == ["small", "big"]
        assert tier_names(trace) == ["niw", "iw-f"]
        assert region_names(trace) == ["west", "east"]

    def test_unknown_names_come_with_a_line_to_paste_that_works(self, write: Write) -> None:
        path = write(GENERIC + "1,m-large,NIW,east,1,1\n2,big,IW,east,1,1\n3,m-large,IW,east,1,1\n")
        with pytest.raises(UnknownName) as caught:
            read_trace(path, scenario())
        assert "m-large (2)" in caught.value.message
        assert "models: big, small" in caught.value.hint
        maps = tuple(caught.value.hint.splitlines()[-1].split("--map ")[1:])
        maps = tuple(each.strip().strip("'") for each in maps)
        assert set(maps) >= {"IW=iw-f", "NIW=niw"}
        assert len(read_trace(path, scenario(), TraceOptions(maps=maps))[0]) == 3

    def test_a_star_catches_what_is_unknown_and_leaves_the_rest(self, write: Write) -> None:
        path = write(GENERIC + "1,a,niw,east,1,1\n2,small,niw,east,1,1\n3,b,niw,east,1,1\n")
        trace, _ = read_trace(path, scenario(), TraceOptions(maps=("*=big",)))
        assert model_names(trace) == ["big", "small", "big"]

    def test_a_qualified_map_touches_one_column_only(self, write: Write) -> None:
        path = write(GENERIC + "1,x,niw,x,1,1\n")
        trace, _ = read_trace(path, scenario(), TraceOptions(maps=("model:x=small", "region:x=west")))
        assert (model_names(trace), region_names(trace)) == (["small"], ["west"])

    def test_maps_that_cannot_work_are_refused_and_useless_ones_noted(self, write: Write) -> None:
        path = write(GENERIC + "1,big,niw,east,1,1\n")
        with pytest.raises(UnknownName, match="defines no model, tier or region 'huge'"):
            read_trace(path, scenario(), TraceOptions(maps=("a=huge",)))
        with pytest.raises(TraceError, match="write FROM=TO"):
            read_trace(path, scenario(), TraceOptions(maps=("big",)))
        trace, _ = read_trace(path, scenario(), TraceOptions(maps=("gone=big",)))
        assert any("changed nothing" in note for note in trace.notes)

    def test_many_unknown_names_get_one_star(self, write: Write) -> None:
        rows = "".join(f"{i},m{i},niw,east,1,1\n" for i in range(40))
        with pytest.raises(UnknownName) as caught:
            read_trace(write(GENERIC + rows), scenario())
        assert "and 32 more" in caught.value.message
        assert "'model:*=big'" in caught.value.hint


class TestAssign:
    ROWS = "".join(f"{i},1,1\n" for i in range(20_000))

    def test_missing_columns_are_filled_by_seeded_shares_and_it_is_said(self, write: Write) -> None:
        path = write("arrival_s,prompt_tokens,output_tokens\n" + self.ROWS)
        assign = AssignSettings(model={"big": 3, "small": 1}, region={"east": 0.5, "west": 0.5})
        trace, _ = read_trace(path, scenario(assign=assign))
        assert np.mean(trace.model == 0) == pytest.approx(0.75, abs=0.01)
        assert np.mean(trace.region == 0) == pytest.approx(0.5, abs=0.01)
        assert np.bincount(trace.tier) / len(trace) == pytest.approx([1 / 3] * 3, abs=0.01)
        assert any("no model column: filled by workload.assign.model with seed 1" in n for n in trace.notes)
        assert any("no tier column: filled by equal shares" in n for n in trace.notes)

    def test_equal_seeds_fill_equally_and_columns_are_independent(self, write: Write) -> None:
        path = write("arrival_s,prompt_tokens,output_tokens\n" + self.ROWS)
        one, same = (read_trace(path, scenario())[0] for _ in range(2))
        other = read_trace(path, scenario(seed=2))[0]
        assert np.array_equal(one.model, same.model)
        assert not np.array_equal(one.model, other.model)
        assert abs(np.corrcoef(one.model, one.region)[0, 1]) < 0.03

    def test_a_star_fills_a_missing_column_whole(self, write: Write) -> None:
        path = write("arrival_s,prompt_tokens,output_tokens\n" + self.ROWS)
        trace, _ = read_trace(path, scenario(), TraceOptions(maps=("*=small", "tier:*=niw")))
        assert set(model_names(trace)) == {"small"}
        assert set(tier_names(trace)) == {"niw"}

    def test_shares_of_unknown_names_are_refused(self, write: Write) -> None:
        path = write("arrival_s,prompt_tokens,output_tokens\n" + self.ROWS)
        with pytest.raises(Exception, match=r"workload\.assign\.model\.huge"):
            read_trace(path, scenario(assign=AssignSettings(model={"huge": 1})))
