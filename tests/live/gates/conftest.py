"""A real Redis, one for all tests, emptied for each.

Read next: `test_writer.py`.
"""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError


@pytest.fixture(scope="session")
def redis_server(short_folder: Callable[[], Path]) -> Iterator[Path]:
    """Its socket."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not on this machine")
    where = short_folder() / "redis.sock"
    command = [program, "--port", "0", "--unixsocket", str(where), "--save", "", "--appendonly", "no", "--dir", str(where.parent)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            with Redis(unix_socket_path=str(where)) as client:
                for _ in range(1000):
                    try:
                        client.ping()
                        break
                    except RedisError:
                        assert process.poll() is None, "redis-server ended"
                        time.sleep(0.01)
            yield where
        finally:
            process.kill()


@pytest.fixture
def redis(redis_server: Path) -> Iterator["Redis"]:
    """A client of an empty one, whose answers are text."""
    with Redis(unix_socket_path=str(redis_server), decode_responses=True) as client:
        client.flushall()
        yield client
