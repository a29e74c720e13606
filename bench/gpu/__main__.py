"""A small engine on a real GPU: measure its steps, serve requests by chance, and predict those from the steps alone.

    python -m bench.gpu measure --out runs/gpu            on the machine with the GPU; torch and Triton are enough
    python -m bench.gpu predict runs/gpu                  anywhere: step times make a profile, the simulator plays the requests
    python -m bench.gpu power                             on the machine with the GPU: what a step takes right after prompts
    python -m bench.gpu adapters --out runs/gpu           on the machine with the GPU: what LoRA adapters add to a step

Weights are drawn at random, so nothing is downloaded. TRITON_INTERPRET=1 and `--shapes tiny-dense,tiny-moe` try the
kernels without a GPU. Read next: `measure.py`, `predict.py`, docs/reference/engine-model.md.
"""

import argparse
import sys
from pathlib import Path

from bench.gpu.shapes import SHAPES


def main(arguments: list[str]) -> int:
    """Run a command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("measure", help="time steps and serve requests; writes a folder per shape")
    measure.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write into")
    measure.add_argument("--shapes", default="dense,moe", help=f"of {', '.join(SHAPES)}; default dense,moe")
    measure.add_argument("--seconds", type=float, default=40.0, help="of arrivals per run, three runs per shape; default 40")
    predict = commands.add_parser("predict", help="predict the runs from step times, and print how far off that is")
    predict.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="as written by measure")
    adapters = commands.add_parser("adapters", help="what LoRA adapters add to a step, and what it takes to bring one")
    adapters.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write adapters.csv into")
    added = commands.add_parser("added", help="what adapters add, as numbers of a formula")
    added.add_argument("file", type=Path, metavar="FILE", help="adapters.csv")
    power = commands.add_parser("power", help="what decoding takes right after prompts, and the clock meanwhile")
    power.add_argument("--shape", default="dense", choices=SHAPES, help="default dense")
    chosen = parser.parse_args(arguments)
    if chosen.command == "power":
        from bench.gpu.power import show

        show(chosen.shape)
        return 0
    if chosen.command == "added":
        from bench.gpu.added import report as report_added

        return report_added(chosen.file)
    if chosen.command == "adapters":
        from bench.gpu.adapters import run as run_adapters

        run_adapters(chosen.out)
        return 0
    if chosen.command == "measure":
        names = chosen.shapes.split(",")
        if unknown := [name for name in names if name not in SHAPES]:
            parser.error(f"no shape {unknown[0]!r}; there are {', '.join(SHAPES)}")
        from bench.gpu.measure import run

        run(names, chosen.seconds, chosen.out)
        return 0
    from bench.gpu.predict import report

    return report(chosen.folders)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
