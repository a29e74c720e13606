"""The fake API server on a port, with a kubeconfig that names it: for commands, which know no transport.

Read next: `test_acting.py`.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from sageserve.live.kubernetes.fake import FakeCluster
from sageserve.live.kubernetes.fake_api import FakeApi

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: fake
contexts: [{{name: fake, context: {{cluster: fake, user: fake}}}}]
clusters: [{{name: fake, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: fake, user: {{token: nobody}}}}]
"""


@contextmanager
def served(cluster: FakeCluster, folder: Path) -> Iterator[Path]:
    """Serve until the block ends; gives the kubeconfig."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(FakeApi(cluster), log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    path = folder / "kubeconfig"
    path.write_text(KUBECONFIG.format(port=listening.getsockname()[1]), "utf-8")
    try:
        yield path
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
