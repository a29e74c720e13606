"""Fifty mistakes that people make: each gets a sentence that is true and a next step, exit code 2, and no traceback.

Readers that left and full disks are in `test_streams.py`, narrow terminals in `test_widths.py`.
Read next: `src/sageserve/cli/main.py`, where errors become text.
"""

import re
import shlex
import sys
from pathlib import Path

import pytest

from sageserve.cli.main import MISTAKE, run
from sageserve.data.results.run_folder import SCENARIO, SUMMARY
from sageserve.data.results.sweep_folder import MARK

FILES = {
    "trace.csv": "time,model,prompt_tokens,output_tokens\n0,llama-3.3-70b,100,10\n60,qwen3-32b,200,20\n",
    "empty.csv": "",
    "head.csv": "time,model,prompt_tokens,output_tokens\n",
    "columns.csv": "a,b\n1,2\n",
    "points.csv": "a\n1\n",
    "broken.yaml": "fleet: [\n",
    "text.yaml": "hello",
    "typo.yaml": "extends: quickstart\nflet: {start: 3}\n",
    "unit.yaml": "extends: quickstart\ntiers: {chat: {ttft: 5}}\n",
    "circle.yaml": "extends: circle.yaml\n",
    "heir.yaml": "extends: quikstart\n",
    "noise.parquet": "\x0b\x01\x02PAR\n\x03",
    "full/letter.txt": "dear",
    f"half/{SUMMARY}": "{}",
    f"swept/{MARK}": "",
    f"swept/reactive-seed1-0a/{SUMMARY}": "{}",
    f"swept/reactive-seed1-0a/{SCENARIO}": "extends: quickstart\n",
    f"swept/siloed-seed1-0a/{SUMMARY}": "{}",
    f"swept/siloed-seed1-0a/{SCENARIO}": "extends: quickstart\n",
}
MISTAKES = """
simulat quickstart                                      | Did you mean 'simulate'
simulate                                                | Missing argument 'SCENARIO'
simulate quikstart                                      | did you mean 'quickstart'
simulate nowhere.yaml                                   | there is no file nowhere.yaml
simulate full                                           | full is a folder, not a scenario
simulate trace.csv                                      | no scenario.*--trace trace.csv
simulate broken.yaml                                    | scenario broken: broken.yaml:2: not valid YAML
simulate text.yaml                                      | scenario text: text.yaml:1: a scenario is a mapping
simulate typo.yaml                                      | typo.yaml:2: flet: unknown key; did you mean 'fleet'
simulate unit.yaml                                      | unit.yaml:2: tiers.chat.ttft: 5 has no unit
simulate heir.yaml                                      | scenario heir: heir.yaml:1: extends: .*mean 'quickstart'
simulate circle.yaml                                    | in a circle.*take one
simulate quickstart --strategy reactiv                  | did you mean reactive
simulate quickstart --strategi reactive                 | --strategy
simulate quickstart --strategy nomodule:Class           | there is no module 'nomodule'
simulate quickstart --set fleet.strat=3                 | did you mean 'start'
simulate quickstart --set fleet.start                   | write --set key.path=value
simulate quickstart --set fleet.start=many              | 'many' is not a whole number
simulate quickstart --strategy fixed:100                | to begin with: at most 24 are allowed.*raise fleet.maximum
simulate quickstart --set fleet.start=900               | start 900 > maximum 24.*lower fleet.start
simulate quickstart --set workload.generate.length=90   | 90 has no unit
simulate quickstart --set workload.generate.length=90x  | '90x' is not a duration
simulate quickstart --set tiers.chat.percentile=95      | 95 is not a share
simulate quickstart --seed x                            | --seed
simulate quickstart --trace nothing.csv                 | nothing.csv does not exist
simulate quickstart --trace empty.csv                   | empty.csv is empty
simulate quickstart --trace head.csv                    | head.csv holds no requests
simulate quickstart --trace columns.csv                 | its columns are a, b.*--column
simulate quickstart --trace noise.parquet               | noise.parquet is not text
simulate quickstart --strategy mine.py:Own              | a module is named without its .py.*write mine:Own
simulate quickstart --trace full                        | full is a folder
simulate quickstart --trace trace.csv --load 0          | give a factor above 0
simulate quickstart --trace trace.csv --map llama       | write FROM=TO
simulate quickstart --set tiers.chat.ttft=0s            | tiers.chat.ttft: '0s' must be more than 0
simulate quickstart --set routing.instance=mine:B:C     | 'mine:B:C' is not a name
simulate quickstart --set routing.instance=mine:rule    | there is no module 'mine'
simulate quickstart --set routing.region=near           | 'near' is not one of threshold, nearest
simulate quickstart --set order.kind=mine:rule          | 'mine:rule' cannot take the place of this rule
simulate quickstart --set admission=mine:Gate           | the rule mine:Gate: there is no module 'mine'
simulate quickstart --map a=b                           | no --trace was given
simulate quickstart --out full                          | full holds files that are not a result
simulate quickstart --out trace.csv                     | trace.csv is a file, not a folder
compare quickstart --strategies reactive,reactiv        | did you mean reactive
compare quickstart --strategies ''                      | names none
compare quickstart --seeds 5..1                         | runs backwards try: write 1..5
compare quickstart --strategies fixed:99 --seeds 1,2        | fixed:99-seed1, fixed:99-seed2: 99 instances.*try: begin
compare quickstart --baseline fixed:x                   | there is no strategy 'fixed:x'
compare quickstart --workers 0                          | --workers
show nowhere                                            | there is no result folder nowhere
show half                                               | not a whole result
show swept/reactive                                     | swept/reactive does not exist.*runs in swept: reactive-seed1-0a $
costs swept/hpa                                         | runs in swept: reactive-seed1-0a, siloed-seed1-0a
costs swept                                             | holds many runs.*swept/reactive-seed1-0a
costs swept --format focus-csv                          | holds many runs.*swept/reactive-seed1-0a
diff half                                               | takes two folders
report nowhere                                          | there is no result folder nowhere
explain nowhere eastus                                  | there is no result folder nowhere
plan quickstart --at noon                               | 'noon' is not a duration
plan quickstart --at 10h --what-if nonsense             | 'nonsense' is not a change to try
size nothing.yaml                                       | there is no file nothing.yaml
size quickstart --safety 2                              | --safety: '2' is not a share
size quickstart --growth 0                              | --growth 0 is not above 0
down --within 5m                                        | --within says how long --drain waits
down --drain --within 2h                                | longer than the hour
down --drain --within soon                              | --within: 'soon' is not a duration
reload --state nowhere                                  | no fleet runs in .*nowhere
doctor                                                  | there is no scenario to check
doctor quickstart --audit-head abc                      | --audit-head is of --local
doctor --local --state nowhere                          | no fleet was ever started in .*nowhere
batch backup copy --state nowhere                       | nowhere holds no batch queue
batch restore nothing.copy --state nowhere              | there is no file nothing.copy
init new.yaml --prometheus http://127.0.0.1:1           | cannot be asked: Connection refused
key new bob --expires 2020-01-01                        | 2020-01-01 has passed
engine --start-delay soon                               | --start-delay: 'soon' is not a duration
forecast trace.csv                                      | choose shorter ones with --bin
forecast nothing.csv                                    | nothing.csv does not exist
trace inspect full                                      | full is a folder
trace generate quickstart mine.csv                      | mine.csv would hold Parquet
scenario set quickstart fleet.start=3                   | quickstart is built in.*extends: quickstart
scenario set nowhere.yaml fleet.start=3                 | cannot read nowhere.yaml
profile show llama-3.1-8b/h200/tp3                      | did you mean
profile list --gpu h101                                 | no GPU is called 'h101'
init mine.txt                                           | name it mine.yaml
init trace.yaml --gpu h101                              | no GPU is called 'h101'
validate --data nowhere                                 | nowhere does not exist
validate --points points.csv                            | has no column
tune quickstart --strategy oracle                       | nothing to tune
status --state nowhere                                  | no fleet runs in .*nowhere
batch submit nothing.jsonl                              | there is no file nothing.jsonl
"""
CASES = [tuple(part.strip() for part in line.split("|")) for line in MISTAKES.strip().splitlines()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with what the mistakes are made on."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What stderr says about a command that ends with exit code 2."""
    monkeypatch.setattr(sys, "argv", ["sageserve", *shlex.split(line)])
    with pytest.raises(SystemExit) as left:
        run()
    answer, said = capsys.readouterr()
    assert left.value.code == MISTAKE, said
    assert not answer
    assert "Traceback" not in said
    return said


def test_there_are_fifty() -> None:
    assert len({line for line, _ in CASES}) == len(CASES) >= 50


@pytest.mark.parametrize(("line", "truth"), CASES, ids=[line for line, _ in CASES])
def test_a_mistake_is_answered_by_a_sentence_and_a_next_step(
    line: str, truth: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    said = refused(line, monkeypatch, capsys)
    assert re.search(truth, re.sub(r"[│\s]+", " ", said)), said
    assert re.search(r"^try: \S|^Try '", said, re.MULTILINE), "what to do next"
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before, "nothing is left behind"


def test_what_an_extra_brings_is_named_where_it_lacks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sageserve.cli.extras.find_spec", lambda _: None)
    said = refused("top --state nowhere", monkeypatch, capsys)
    assert "pip install 'sageserve[live]'" in said


def test_a_narrow_terminal_says_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    said = refused("simulate quikstart", monkeypatch, capsys)
    assert "did you mean 'quickstart'?" in said
