"""`sageserve warm-up`: compile the simulator now. Read next: `kernels.py`."""

import typer

from sageserve.cli import kernels


def warm_up() -> None:
    """Compile the simulator once (twenty seconds or more), so that the first simulation starts at once."""
    took = kernels.warm_up()
    typer.echo(f"kernels are ready in {kernels.use_cache()} ({took:.1f} s)")
