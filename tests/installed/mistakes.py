"""Mistakes that people make, played one after another by the interpreter that runs this file, and what was said to each.

    python mistakes.py FOLDER > answers.json

Run by the environment of an installed wheel: imports nothing of the tests. Read next: `test_mistakes.py`.
"""

import contextlib
import io
import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Final

from sageserve.cli.main import run
from sageserve.data.results.run_folder import SCENARIO, SUMMARY
from sageserve.data.results.sweep_folder import MARK

_AT_MOST_S: Final = 180
FLEET: Final = """
name: tiny
gpus: {l40s: {memory: 48GiB, start: 1m}}
regions: {here: {gpus: {l40s: {gpus: 8, price: {on_demand: 8/h, spot: 2/h}}}}}
models: {llama-3.1-8b: {context: 8192, engines: {l40s: llama-3.1-8b/l40s/tp1}}}
tiers: {chat: {ttft: 1s}}
fleet: {start: 2, minimum: 1, maximum: 6}
strategy: {name: reactive}
live:
  clusters: {here: {}}
  targets:
    small: {cluster: here, pool: here/llama-3.1-8b/l40s, kind: ScaledObject, name: serving/small, min: 1, max: 6}
"""
KEDA: Final = FLEET.replace("max: 6}", "max: 6, keda: true}")
RULES: Final = """import random; from sageserve.plugins import Unified

def endless(in_flight):
    while True: in_flight += 1

def typo(inflight): return 1
def dice(away): return random.random()
def words(wait): return 'yes'

class Broken(Unified):
    def __init__(self, scenario, layout, earlier): 1 / 0
    def handle(self, now, event, fleet): return ()
"""
FILES: Final = {
    "trace.csv": "time,model,prompt_tokens,output_tokens\n0,llama-3.3-70b,100,10\n60,qwen3-32b,200,20\n",
    "empty.csv": "",
    "sheet.csv": "time,model,prompt_tokens,output_tokens\n45992.5,qwen3-32b,100,10\n45992.6,qwen3-32b,200,20\n",
    "twice.csv": "time,model,prompt_tokens,prompt_tokens,output_tokens\n0,qwen3-32b,100,200,10\n",
    "below.csv": "time,model,prompt_tokens,output_tokens\n0,qwen3-32b,-100,10\n60,qwen3-32b,200,-20\n",
    "tab.yaml": "extends: quickstart\nfleet:\n\tstart: 3\n",
    "again.yaml": "extends: quickstart\nfleet: {start: 3}\nfleet: {start: 4}\n",
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
    "watched.yaml": FLEET,
    "scaled.yaml": f"{KEDA}  scaler: {{tls: {{certificate: /nowhere/tls.crt, key: /nowhere/tls.key}}}}\n",
    "ours.yaml": "extends: local\nlive: {engines: {llama-3.1-8b: {command: [vlm, serve, '{port}']}}}\n",
    "rolls.yaml": "extends: local\nrollouts: [{model: llama-3.1-8b}]\n",
    "rules.py": RULES,
    "seen/scenario.yaml": FLEET,
    "seen/minutes/minutes-20260101.jsonl": "",
    "full/letter.txt": "dear",
    f"half/{SUMMARY}": "{}",
    f"swept/{MARK}": "",
    f"swept/reactive-seed1-0a/{SUMMARY}": "{}",
    f"swept/reactive-seed1-0a/{SCENARIO}": "extends: quickstart\n",
    f"swept/siloed-seed1-0a/{SUMMARY}": "{}",
    f"swept/siloed-seed1-0a/{SCENARIO}": "extends: quickstart\n",
}
MISTAKES: Final = """
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
simulate quickstart --strategy fixed:100 --set workload.generate.requests=90 | at most 24 are allowed.*raise fleet.maximum
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
trace inspect sheet.csv                                 | a spreadsheet's dates.*Save the column as text
trace inspect twice.csv                                 | 2 columns called 'prompt_tokens'
trace inspect below.csv                                 | below 1 \\(line 3\\)
simulate tab.yaml                                       | tab.yaml:3: not valid YAML
simulate again.yaml                                     | again.yaml:3: fleet: given twice, first in line 2
watch trace.csv                                         | no scenario.*name a scenario
report trace.csv                                        | trace.csv is a file, not a result folder
compare quickstart --strategies 'reactive; hpa'         | no strategy 'reactive; hpa'
size quickstart --lead-time 12                          | '12' is not a duration
size quickstart --survive regions                       | neither region nor vm
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
watch nowhere.yaml                                      | there is no file nowhere.yaml
watch watched.yaml                                      | nothing says where the history is of cluster here
watch watched.yaml --prometheus prom                    | 'prom' is not the address of a server
watch watched.yaml --prometheus http://127.0.0.1:9      | cannot be asked
watch watched.yaml --prometheus http://127.0.0.1:9 --every soon | --every: 'soon' is not a duration
watch watched.yaml --dry-run                            | --dry-run is of --act
watch watched.yaml --act                                | no target may be acted on
watch watched.yaml --set fleet.minimum=0                | could have no instance, and who waits
watch watched.yaml --listen here                        | --listen 'here' is no address
watch scaled.yaml                                       | live.scaler.tls.certificate: /nowhere/tls.crt cannot be read
watch quickstart --prometheus http://127.0.0.1:9        | has llama-3.3-70b in 2 regions.*live.targets
watch rolls.yaml                                        | rolled out by them
status --state seen                                     | nobody watches in .*sageserve shadow-report
promote small floor --state nowhere                     | nothing was watched in
promote smal floor --state seen                         | there is no target 'smal'; did you mean 'small'
promote small flor --state seen                         | 'flor' is no rung; did you mean 'floor'
promote small bounds --state seen                       | small has observe: one rung at a time
promote small floor --state seen                        | small may not be raised to floor
freeze small --for 2h --state nowhere                   | nothing was watched in
freeze small --for 40d --state seen                     | is not between 0 and 31d
freeze small --for 2h --state seen                      | only observed.*sageserve promote small floor
override small --for 2h --why launch --state seen       | 'small' is no target with a number
override small=2 --for 2h --why '' --state seen         | --why is empty
override small=9 --for 2h --why launch --state seen     | small may have 1 to 6 instances, not 9
thaw all --state seen                                   | only observed
release smal --state seen                               | did you mean 'small'
render chrt watched.yaml                                | No such command 'chrt'
render chart watched.yaml --image a                     | live.clusters.here has no prometheus
render chart watched.yaml --image 'a b' --set live.clusters.here.prometheus.url=http://p | --image
render chart watched.yaml --image a --storage much --set live.clusters.here.prometheus.url=http://p | --storage
rollout begin rolls.yaml --state nowhere                | no fleet runs in
rollout show --state seen                               | nobody watches in
rollout stop llama-3.1-8b --state nowhere               | no fleet runs in
batch erase '' --state nowhere                          | KEY_NAME is empty
batch erase bob --state nowhere                         | no fleet runs in
batch fetch batch_1 --state nowhere                     | no fleet runs in
up nowhere.yaml                                         | there is no file nowhere.yaml
up ours.yaml                                            | live.engines.llama-3.1-8b: there is no program 'vlm'
up rolls.yaml                                           | begins one when it is told
up local --set fleet.minimum=0 --set live.actuator=fixed | could have no instance
up local --set strategy.name=hpa --set fleet.minimum=0 --set fleet.start=0 | keeps an instance of every model
simulate quickstart --set strategy.planned.every=-3s    | strategy.planned.every
up local --speed 0                                      | --speed
simulate quickstart --set routing.instance=rules:endless | rules.py:4: .* does not end
simulate quickstart --set routing.instance=rules:typo   | rules.py:.* asks for 'inflight'.* did you mean in_flight
simulate quickstart --set routing.region=rules:dice     | rules.py:.* uses random
simulate quickstart --set admission=rules:words         | rules.py:.* gave 'yes', not a number
simulate quickstart --set routing.instance=rules:Nobody | defines no 'Nobody'
simulate quickstart --strategy rules:dice               | rules.py:7: rules:dice has no method
simulate quickstart --strategy rules:Broken --set workload.generate.requests=90 | rules.py:11: .* cannot be made: ZeroDiv
compare quickstart --strategies reactive,rules:Nobody   | defines no 'Nobody' try: it defines Broken $
plan quickstart --at 10h --set workload.generate.requests=90 --set strategy.planned.forecaster=rules:Nobody | defines no 'Nobody'
shadow-report nowhere                                   | nowhere
alerts nowhere.yaml                                     | there is no file nowhere.yaml
top --state nowhere                                     | no fleet runs in
backtest watched.yaml nothing.om                        | nothing.om
reproduce papr                                          | papr
swarm --seeds 0                                         | --seeds
scenario check nowhere.yaml                             | there is no file nowhere.yaml
trace convert nothing.csv new.parquet                   | nothing.csv does not exist
plan diff nothing.json nothing.json                     | nothing.json
"""
CASES: Final = tuple(tuple(part.strip() for part in line.split("|", 1)) for line in MISTAKES.strip().splitlines())
"""Every command line, and what must stand in its answer (a regular expression; blanks as one)."""


def main(folder: Path) -> None:
    """Make them all in a folder, and print a JSON object by command line: exit code, stdout, stderr, files left behind."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    os.chdir(folder)
    signal.alarm(_AT_MOST_S)  # a mistake that is none any more may begin to serve
    found: dict[str, object] = {}
    before = listing(folder)
    for line, _ in CASES:
        sys.argv = ["sageserve", *shlex.split(line)]
        code: object = 0
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                run()
            except SystemExit as left:
                code = left.code
        found[line] = {"code": code, "out": out.getvalue(), "err": err.getvalue(), "left": sorted(listing(folder) - before)}
    json.dump(found, sys.stdout, allow_nan=False)


def listing(folder: Path) -> set[str]:
    """All that is in a folder; Python's own files apart."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
