"""KEDA's external scaler under load: `python -m bench.scaler [--targets 200] [--seconds 60]`.

A process serves; this one polls every target once a second as KEDA does (specs, metrics, activity) and holds a stream for each.
Goal: 200 targets, p99 of a call below 20 ms, and memory that does not grow. Read next: `src/sageserve/live/scaler/`.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bench.figures import show

if TYPE_CHECKING:
    from sageserve.live.scaler.service import Scaler

_SERVE: Final = "serve"


async def _serve(count: int) -> None:
    from sageserve.base.config import ScalerSettings, TargetSettings
    from sageserve.live.scaler.answers import PoolWish
    from sageserve.live.scaler.service import Scaler, ScalerPort

    targets = {
        f"t{n}": TargetSettings.model_validate(
            {"cluster": "c", "pool": f"r/m{n}/g", "kind": "ScaledObject", "name": f"s/t{n}", "keda": True, "max": 9}
        )
        for n in range(count)
    }
    port = ScalerPort(ScalerSettings(listen="127.0.0.1:0"), Scaler(targets, lambda _: PoolWish(3)))
    port.opened = lambda address: print(address, flush=True)
    server = await port.open()
    looks = asyncio.create_task(_look(port.scaler))
    await server.wait_for_termination()
    looks.cancel()


async def _look(scaler: "Scaler") -> None:
    while True:
        await asyncio.sleep(15)
        scaler.look()


async def _ask(address: str, count: int, seconds: int) -> list[float]:
    from grpc import aio

    from sageserve.live.scaler.messages import SERVICE, TYPES

    took: list[float] = []
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with aio.insecure_channel(address, options=options) as channel:
        names = ("GetMetricSpec", "GetMetrics", "IsActive")
        calls: list[aio.UnaryUnaryMultiCallable[bytes, bytes]] = [channel.unary_unary(f"/{SERVICE}/{name}") for name in names]
        refs = [TYPES["ScaledObjectRef"](name=f"t{n}", namespace="s") for n in range(count)]
        asked = [TYPES["GetMetricsRequest"](scaledObjectRef=ref, metricName="desired").SerializeToString() for ref in refs]
        plain = [ref.SerializeToString() for ref in refs]
        held: aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"/{SERVICE}/StreamIsActive")
        streams = [held(one) for one in plain]
        for stream in streams:
            await stream.read()

        async def poll(n: int) -> None:
            await asyncio.sleep(n / count)
            for _ in range(seconds):
                begin = time.perf_counter()
                for call, message in zip(calls, (plain[n], asked[n], plain[n]), strict=True):
                    at = time.perf_counter()
                    await call(message)
                    took.append(time.perf_counter() - at)
                await asyncio.sleep(max(0.0, 1.0 - (time.perf_counter() - begin)))

        await asyncio.gather(*(poll(n) for n in range(count)))
    return took


def _resident_mb(pid: int) -> float:
    fields = Path(f"/proc/{pid}/statm").read_text("utf-8").split()
    return int(fields[1]) * 4096 / 1e6


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=[_SERVE])
    parser.add_argument("--targets", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    if options.what == _SERVE:
        asyncio.run(_serve(options.targets))
        return
    command = [sys.executable, "-m", "bench.scaler", _SERVE, "--targets", str(options.targets)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        try:
            address = served.stdout.readline().strip()
            asyncio.run(_ask(address, options.targets, 5))  # warm
            before, used = _resident_mb(served.pid), _cpu_s(served.pid)
            took = asyncio.run(_ask(address, options.targets, options.seconds))
            after, used = _resident_mb(served.pid), _cpu_s(served.pid) - used
        finally:
            served.kill()
    show("scaler_call_p50", float(np.quantile(took, 0.5)) * 1e3, "ms")
    show("scaler_call_p99", float(np.quantile(took, 0.99)) * 1e3, "ms")
    show("scaler_calls", len(took), "calls")
    show("scaler_cpu_share", used / options.seconds, "cores")
    show("scaler_mb_before", before, "MB")
    show("scaler_mb_after", after, "MB")


if __name__ == "__main__":
    main()
