"""`sageserve simulate`: the same bytes for the same seed, a table that fits, files that are whole, errors on one screen.

Read next: `tests/sim/test_summary.py` for the numbers themselves.
"""

import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from msgspec import UNSET
from typer.testing import CliRunner

from sageserve.base.errors import ConfigError, LawBroken, ResultError
from sageserve.cli.columns import WIDTH
from sageserve.cli.main import app, run, show_error
from sageserve.cli.progress import Interruption
from sageserve.cli.render import seconds, share
from sageserve.data.results.run_folder import CONTENT, PARTIAL, REPORT, REQUESTS, SCENARIO, SUMMARY, RunFolder, read_run
from tests.worlds import SMALL_FLEET

SMALL = ("simulate", SMALL_FLEET, "--set", "workload.generate.requests=4000", "--set", "workload.generate.length=45m")
TIMINGS = {"cpu_s", "requests_per_cpu_s"}
KEYS = [
    *("requests.arrived", "requests.finished", "requests.unfinished", "tiers.iw-f.requests", "tiers.iw-f.finished"),
    *("tiers.iw-f.attainment", "tiers.niw.ttft_s.p50", "tiers.niw.ttft_s.p95", "tiers.niw.ttft_s.p99"),
    *("tiers.iw-n.e2e_s.p50", "tiers.iw-n.e2e_s.p95", "tiers.iw-n.e2e_s.p99", "gpu_hours.total", "gpu_hours.serving"),
    *("gpu_hours.starting", "gpu_hours.draining", "gpu_hours.spot", "gpu_hours.waste", "cost_usd.total", "starts"),
    *("preemptions", "cpu_s", "requests_per_cpu_s", "seed", "version"),
]


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def untimed(text: str) -> dict[str, object]:
    return {key: value for key, value in json.loads(text).items() if key not in TIMINGS}


def test_two_runs_with_one_seed_give_identical_files(tmp_path: Path) -> None:
    chance = ("--set", "faults={start_failure: 0.2, start_spread: 0.3, rtt_spread: 0.4}", "--seed", "7")
    for name in ("a", "b"):
        printed(*SMALL, *chance, "--out", str(tmp_path / name))
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted((SUMMARY, REPORT, *CONTENT))
    for name in names:
        first, second = ((tmp_path / folder / name).read_bytes() for folder in ("a", "b"))
        if name == SUMMARY:
            assert untimed(first.decode()) == untimed(second.decode())
        else:
            assert first == second, name
    other = json.loads(printed(*SMALL, "--seed", "8", "--json"))
    assert other["seed"] == 8
    assert other["tiers"] != json.loads((tmp_path / "a" / SUMMARY).read_text())["tiers"]


def test_json_is_the_file_and_has_every_promised_key(tmp_path: Path) -> None:
    text = printed(*SMALL, "--json", "--out", str(tmp_path / "run"))
    assert text == (tmp_path / "run" / SUMMARY).read_text()
    for key in KEYS:
        value = json.loads(text)
        for part in key.split("."):
            value = value[part]
        assert value is not None, key


def test_what_was_written_is_what_was_played(tmp_path: Path) -> None:
    printed(*SMALL, "--strategy", "siloed", "--order", "edf", "--set", "fleet.start=6", "--out", str(tmp_path / "run"))
    found = read_run(tmp_path / "run")
    assert (found.summary.strategy, found.summary.order) == ("siloed", "edf")
    assert (found.scenario.strategy.name, found.scenario.order.kind) == ("siloed", "edf")
    requests = found.requests()
    assert requests.num_rows == found.summary.requests.arrived == 4000
    for name, tier in found.summary.tiers.items():
        rows = [row for row in requests.to_pylist() if row["tier"] == name]
        done = [row["e2e_us"] for row in rows if row["state"] == "finished"]
        assert (len(rows), len(done)) == (tier.requests, tier.finished)
        assert sum(row["met"] for row in rows) / len(rows) == pytest.approx(tier.attainment, abs=2e-6)
        assert sorted(done)[len(done) // 2] / 1e6 == pytest.approx(tier.e2e_s.p50, rel=0.05)
    timeline = found.timeline()
    assert timeline.num_rows == 46 * 2 * 2 * 2  # minutes 0 to 45, two regions, two models, two roles
    assert set(timeline["role"].to_pylist()) == {"interactive", "batch"}
    made = [line for line in found.journal() if line.decisions]
    assert made
    assert {decided.pool for line in made for decided in line.decisions} <= set(requests["pool"].to_pylist())
    again = printed("simulate", str(tmp_path / "run" / SCENARIO), "--json")
    assert untimed(again) == untimed((tmp_path / "run" / SUMMARY).read_text())


def check_tenants(run: RunFolder) -> None:
    """What each tenant got is what its rows say."""
    rows = run.requests(["tenant", "tier", "met", "state"]).to_pylist()
    assert run.summary.tenants is not UNSET
    assert list(run.summary.tenants) == ["search", "chat"], "who asked most comes first"
    for name, one in run.summary.tenants.items():
        mine = [row for row in rows if row["tenant"] == name]
        assert (one.requests, one.finished) == (len(mine), sum(row["state"] == "finished" for row in mine))
        for tier, kept in one.attainment.items():
            met = [row["met"] for row in mine if row["tier"] == tier]
            assert kept == pytest.approx(sum(met) / len(met), abs=1e-6)


def test_every_table_of_costs_and_the_file_for_finance_come_to_the_bill(tmp_path: Path) -> None:
    trace = tmp_path / "day.csv"
    asked = [f"{60 * k},llama-2-70b,{['chat', 'search'][k % 3 > 0]},{500 + k},9" for k in range(60)]
    trace.write_text("\n".join(("time,model,tenant,prompt_tokens,output_tokens", *asked)) + "\n")
    settings = ("regions.eastus.gpus.h100-80gb.reserved=120", "fleet.start=2", "currency=EUR")
    given = [word for setting in settings for word in ("--set", setting)]
    shown = [printed("simulate", SMALL_FLEET, "--trace", str(trace), *given, "--out", str(tmp_path / "run"))]
    told = json.loads(printed("costs", str(tmp_path / "run"), "--json"))
    total = told["cost_usd"]["total"]
    assert 0 < told["cost_usd"]["unused"] < told["cost_usd"]["reserved"] < total
    for by in ("tenant", "tier", "model", "region"):
        rows = told["cost_by"][by].values()
        assert round(sum(row["total"] for row in rows), 2) == total
        assert round(sum(row["unused"] for row in rows), 2) == told["cost_usd"]["unused"]
    assert told["cost_by"]["tenant"]["search"]["requests"] == 40
    assert set(read_run(tmp_path / "run").requests(["tenant"])["tenant"].to_pylist()) == {"chat", "search"}
    check_tenants(read_run(tmp_path / "run"))
    file = printed("costs", str(tmp_path / "run"), "--format", "focus-csv", "--begins", "2026-11-01")
    for begins in ("", "soon", "9999-12-31", "0001-01-01T00:00+14:00"):
        refused = CliRunner().invoke(app, ["costs", str(tmp_path / "run"), "--format", "focus-csv", "--begins", begins])
        assert isinstance(refused.exception, ConfigError)
    rows = list(csv.DictReader(io.StringIO(file)))
    for column in ("BilledCost", "EffectiveCost"):
        assert sum(Decimal(row[column]) for row in rows) == Decimal(str(total))
    for tenant in ("chat", "search"):
        mine = sum(Decimal(row["EffectiveCost"]) for row in rows if row["SubAccountId"] == tenant)
        assert mine == Decimal(str(told["cost_by"]["tenant"][tenant]["total"]))
    assert {row["BillingCurrency"] for row in rows} == {"EUR"}
    shown += [printed(command, str(tmp_path / "run")) for command in ("costs", "show")]
    shown.append((tmp_path / "run" / REPORT).read_text().split('id="plotly"')[0])
    assert "search" in shown[1]
    assert "What each tenant got" in shown[-1]
    for text in shown:
        assert "EUR " in text
        assert not re.search(r"\$ ?[0-9/]", text)


def test_the_table_fits_and_says_what_to_try(tmp_path: Path) -> None:
    text = printed(*SMALL, "--set", "fleet.start=2", "--load", "4")
    assert max(len(line) for line in text.partition("next: ")[0].splitlines()) <= WIDTH  # a command is never broken
    for word in ("16,000 requests", "iw-f", "llama-2-70b", "all models", "cost", "waste", "utilisation", "next: "):
        assert word in text
    rows = [line.split() for line in text.splitlines()]
    assert any(row[:2] == ["iw-f", "95%"] and ("✓" in row or "✗" in row) for row in rows)


def test_turns_follow_their_answers_in_every_view(tmp_path: Path) -> None:
    file, out = tmp_path / "talks.jsonl", tmp_path / "run"
    lines = [
        {"session_id": f"s{talk}", "input_length": 300 + 400 * turn, "output_length": 100}
        | ({"delay": 1500 * turn} if turn else {"timestamp": 700 * talk})
        for turn in range(4)
        for talk in range(30)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    play = ("simulate", SMALL_FLEET, "--trace", str(file), "--set", "workload.assign.region={eastus: 1}")
    text = printed(*play, "--out", str(out))
    counts = json.loads((out / SUMMARY).read_text())["conversations"]
    assert (counts["conversations"], counts["followed"], counts["never_arrived"]) == (30, 90, 0)
    assert counts["cached_share"] > 0.1
    assert "90 of 120 requests are turns that wait for the answer before them" in " ".join(text.split())
    rows = {(row["session"], row["turn"]): row for row in pq.read_table(out / REQUESTS).to_pylist()}
    for talk in range(30):
        for turn in range(1, 4):
            before, later = rows[f"s{talk}", turn], rows[f"s{talk}", turn + 1]
            assert later["arrival_us"] == before["arrival_us"] + before["e2e_us"] + 1_500_000 * turn
    report = (out / REPORT).read_text()
    assert "wait for the answer before them" in report
    apart = json.loads(printed(*play, "--set", "workload.loop=open", "--json"))
    assert "conversations" not in apart
    assert apart["requests"]["arrived"] == 120


def test_who_was_turned_away_is_in_every_view(tmp_path: Path) -> None:
    out, full = str(tmp_path / "run"), ("--load", "20", "--set", "fleet={start: 2, maximum: 3}")
    text = printed(*SMALL, *full, "--out", out)
    summary = json.loads((tmp_path / "run" / SUMMARY).read_text("utf-8"))
    shed = summary["requests"]["shed"]
    assert shed > 100
    states = pq.read_table(tmp_path / "run" / REQUESTS, columns=["state", "tier", "met"])
    away = states.filter(pc.equal(states["state"], "shed"))
    assert away.num_rows == shed
    assert not any(away["met"].to_pylist())
    by_tier = {name: tier["shed"] for name, tier in summary["tiers"].items()}
    assert by_tier == {name: away["tier"].to_pylist().count(name) for name in by_tier}
    assert f"{shed:,} shed" in text
    heads = next(line.split() for line in text.splitlines() if line.startswith("tier "))
    assert heads[:5] == ["tier", "promise", "requests", "finished", "shed"]
    assert max(len(line) for line in text.partition("next: ")[0].splitlines()) <= WIDTH
    assert f"{shed:,} requests were turned away and count as late." in " ".join(printed("show", out).split())
    page = (tmp_path / "run" / REPORT).read_text("utf-8")
    assert 'scope="col">shed</th>' in page
    compared = printed("compare", *SMALL[1:], *full, "--strategies", "reactive,siloed")
    assert "shed" in compared.split()
    assert "shed" not in printed(*SMALL, "--set", "admission=off").split(), "a column of zeros says nothing"


def test_seconds_and_shares_keep_three_digits() -> None:
    shown = [seconds(value) for value in (None, 0.0004, 0.0851, 0.9996, 2.492, 31.04, 90.0, 5400.0, 86_400.0, 200_000.0)]
    assert shown == ["–", "0ms", "85ms", "1.00s", "2.49s", "31.0s", "1.50m", "1.50h", "24.0h", "2.31d"]
    assert [share(value) for value in (None, 1.0, 0.999999, 0.5)] == ["–", "100.00%", "99.99%", "50.00%"]


def test_a_trace_is_played_with_its_names_mapped(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    rows = [f"{second},{100 + second},{10 + second % 7}" for second in range(300)]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows, "300,1,0"]) + "\n")
    result = CliRunner().invoke(
        app, ["simulate", SMALL_FLEET, "--trace", str(path), "--trace", str(path), "--json"], catch_exceptions=False
    )
    assert json.loads(result.stdout)["requests"]["arrived"] == 600
    assert "1 row" in result.stderr
    assert any("one after the other" in note for note in json.loads(result.stdout)["notes"])


def test_an_old_result_is_replaced_only_when_that_is_asked(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    printed(*SMALL, "--out", str(folder))
    again = (*SMALL, "--seed", "3", "--out", str(folder))
    with pytest.raises(ResultError, match="holds another run"):
        printed(*again)
    printed(*again, "--replace")
    assert read_run(folder).summary.seed == 3


# ------------------------------------------------------------------------------------------------ errors


def failed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What `sageserve` says on stderr when it exits with 2."""
    monkeypatch.setattr(sys, "argv", ["sageserve", *arguments])
    with pytest.raises(SystemExit) as stopped:
        run()
    out, err = capsys.readouterr()
    assert stopped.value.code == 2
    assert out == ""
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 24
    return err


def test_mistakes_give_one_screen_with_a_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n")
    (tmp_path / "names.csv").write_text("arrival_us,model,prompt_tokens,output_tokens\n1,gpt-9,10,10\n")
    (tmp_path / "cut.csv.gz").write_bytes(b"\x1f\x8b\x08\x00\x00\x00\x00\x00")
    (tmp_path / "typo.yaml").write_text(f"extends: {SMALL_FLEET}\nfleet:\n  strat: 4\n")
    for arguments, words in (
        (("quickstrat",), ("quickstart",)),
        ((str(tmp_path / "typo.yaml"),), ("typo.yaml:3", "did you mean 'start'")),
        ((SMALL_FLEET, "--strategy", "reactiv"), ("reactiv", "siloed")),
        ((SMALL_FLEET, "--order", "lifo"), ("lifo", "fcfs")),
        ((SMALL_FLEET, "--set", "fleet.start=ten"), ("--set fleet.start=ten",)),
        ((SMALL_FLEET, "--set", "fleet={start: 400, maximum: 400}"), ("stock",)),
        ((SMALL_FLEET, "--load", "0"), ("--load",)),
        ((SMALL_FLEET, "--map", "a=b"), ("--trace",)),
        ((SMALL_FLEET, "--trace", str(tmp_path / "none.csv")), ("none.csv",)),
        ((SMALL_FLEET, "--trace", str(tmp_path / "empty.csv")), ("empty.csv",)),
        ((SMALL_FLEET, "--trace", str(tmp_path / "header.csv")), ("no requests",)),
        ((SMALL_FLEET, "--trace", str(tmp_path / "cut.csv.gz")), ("cut.csv.gz",)),
        ((SMALL_FLEET, "--trace", str(tmp_path / "names.csv")), ("gpt-9", "--map")),
        ((SMALL_FLEET, "--out", str(tmp_path)), ("--replace",)),
        ((SMALL_FLEET, "--out", str(tmp_path / "empty.csv")), ("is a file",)),
    ):
        said = failed(capsys, monkeypatch, "simulate", *arguments)
        assert all(word in said for word in words), said


def test_a_fault_of_ours_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_error(LawBroken("instance 3 holds what instance 4 holds"), debug=False) == 1
    said = capsys.readouterr().err
    assert "not yours" in said
    assert "instance 3" in said
    assert "Traceback" not in said
    with pytest.raises(ValueError, match="inside") as raised:
        int("[bold]inside")
    assert show_error(raised.value, debug=True) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "[bold]inside" in said


# ------------------------------------------------------------------------------------------------ Ctrl-C


def run_in_terminal(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    """A `sageserve` whose stderr is a terminal, so that it shows its progress."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "sageserve.cli.main", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    return process, ours


def shown_until(terminal: int, text: str) -> str:
    seen = ""
    while text not in seen:
        try:
            seen += os.read(terminal, 4096).decode(errors="replace")
        except OSError:  # the other end is closed: the process is gone
            pytest.fail(f"{text!r} was not shown, but … {seen[-600:]!r}")
    return seen


class Busy(io.StringIO):
    """A stream that is being written to, which must not be entered twice."""

    def write(self, _: str) -> int:
        raise RuntimeError("reentrant call")


def test_an_interruption_is_heard_while_stderr_is_being_written(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", Busy())
    with Interruption().heard() as interruption:
        signal.raise_signal(signal.SIGINT)
        assert interruption.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err.count("a partial result follows") == 1


@pytest.mark.slow
def test_an_interruption_leaves_a_marked_partial_result(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process, terminal = run_in_terminal(
        *("simulate", SMALL_FLEET, "--set", "workload.generate.requests=3e6", "--set", "workload.generate.length=20d"),
        *("--out", str(folder)),
    )
    shown_until(terminal, "simulate ")
    process.send_signal(signal.SIGINT)
    assert "partial result" in shown_until(terminal, "partial result")
    assert process.stdout is not None
    out = process.stdout.read()
    assert process.wait() == 130
    os.close(terminal)
    assert "PARTIAL" in out
    assert (folder / PARTIAL).exists()
    found = read_run(folder).summary
    assert found.partial
    assert 0 <= found.played_s < found.window_s
    counts = found.requests
    assert counts.arrived == counts.finished + counts.unfinished + counts.refused + counts.shed
    assert pq.ParquetFile(folder / REQUESTS).metadata.num_rows == counts.arrived
    assert list(tmp_path.iterdir()) == [folder]


# ------------------------------------------------------------------------------------------------ real traces


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("azure2023/AzureLLMInferenceTrace_conv.csv.gz", ("--map", "*=llama-2-70b")),
        ("azure2023/AzureLLMInferenceTrace_code.csv.gz", ("--map", "*=llama-2-70b")),
        # every twentieth of its 3.6 million requests: enough to meet all seven days and every model
        (
            "servegen_week/tiered_7d.parquet",
            ("--map", "model:*=llama-3.1-8b", "--map", "IW=iw-f", "--map", "NIW=niw", "--load", "0.05"),
        ),
    ],
)
def test_real_traces_run_and_lose_nothing(shared_data: Path, name: str, options: tuple[str, ...]) -> None:
    path = shared_data / name
    if not path.exists():
        pytest.skip(f"{name} is not among the real traces on this machine")
    found = json.loads(printed("simulate", SMALL_FLEET, "--trace", str(path), *options, "--json"))
    counts = found["requests"]
    assert counts["arrived"] == sum(counts[part] for part in ("finished", "unfinished", "refused", "shed")) > 1000
    assert counts["unfinished"] == 0
