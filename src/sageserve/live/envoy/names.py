"""Names that Envoy, its bootstrap file and the files for it have in common. Pure. Read next: `resources.py`, `bootstrap.py`."""

import re
import zlib
from typing import Final

from sageserve.core.layout import Layout

ROUTES: Final = "sageserve"
"""Name of the route configuration."""
ROUTES_FILE: Final = "routes.json"
METADATA: Final = "sageserve"
"""Namespace in which the listener notes the model of a request."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._/-]+|--")


def cluster_of(layout: Layout, endpoint: int) -> str:
    """Envoy's cluster for an endpoint, such as `east/llama` or `east/llama/batch`."""
    names, roles = layout.names, layout.roles
    region, model = divmod(endpoint // len(roles), len(names.models))
    role = f"/{roles[endpoint % len(roles)].name}" if len(roles) > 1 else ""
    return f"{names.regions[region]}/{names.models[model]}{role}"


def file_of(cluster: str) -> str:
    """The file with the instances of a cluster."""
    mark = f"-{zlib.crc32(cluster.encode()):08x}" if _UNSAFE.search(cluster) else ""
    return f"{_UNSAFE.sub('-', cluster).replace('/', '--')}{mark}.json"


def used(layout: Layout) -> list[int]:
    """Endpoints that can have an instance."""
    return sorted({pool.endpoint for pool in layout.pools})
