"""The REST API of Ray's dashboard, as far as Serve has one: read everything, deploy a whole config, scale one deployment.

    GET  /api/serve/applications/                               details of all applications, and the configs that were deployed
    PUT  /api/serve/applications/                               a whole config; applications that it leaves out are removed
    POST /api/v1/applications/APP/deployments/DEP/scale         where the application has external_scaler_enabled

From docs.ray.io/en/master/serve/api/rest-api.html and the sources of Ray 2.60. What goes wrong is an answer, never an exception.
Read next: `deployments.py`; `fake.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

from sageserve.base.config.clusters import RaySettings
from sageserve.base.errors import ConfigError, in_words
from sageserve.base.urls import shown_url
from sageserve.live.kubernetes.objects import Json, KubeObject
from sageserve.live.kubernetes.writer import NotWritten

if TYPE_CHECKING:
    import httpx

TIMEOUT_S: Final = 10.0
APPLICATIONS: Final = "/api/serve/applications/"


class ServeDashboard:
    """One Ray cluster.

    Args:
        settings: where it is.
        transport: for tests; none: the network.

    Raises:
        ConfigError: the certificates to trust cannot be read.
    """

    def __init__(self, settings: RaySettings, transport: "httpx.AsyncBaseTransport | None" = None) -> None:
        import ssl

        import httpx

        self._url, self._bearer = settings.url.rstrip("/"), settings.bearer_file
        self._shown = shown_url(self._url)
        try:
            trusted = ssl.create_default_context(cafile=settings.ca_file)
        except OSError as error:
            raise ConfigError(f"ca_file {settings.ca_file}: {in_words(error)}", hint="a PEM file of certificates") from None
        self._client = httpx.AsyncClient(verify=trusted, timeout=TIMEOUT_S, follow_redirects=False, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self._client.aclose()

    async def details(self) -> KubeObject | NotWritten:
        """Everything that is known of Serve."""
        found = await self._ask("GET", APPLICATIONS, None)
        if isinstance(found, NotWritten):
            return found
        try:
            data = found.json()
        except (ValueError, RecursionError):
            return NotWritten(0, "NotJson", f"{self._shown} answers something else than JSON: is it Ray's dashboard?")
        if not isinstance(data, Mapping) or not isinstance(data.get("applications"), Mapping):
            return NotWritten(0, "NotServe", f"{self._shown} answers without applications: is it Ray's dashboard?")
        return KubeObject(data)

    async def deploy(self, config: Mapping[str, Json]) -> NotWritten | None:
        """Deploy a whole config; why it was not, or None."""
        found = await self._ask("PUT", APPLICATIONS, config)
        return found if isinstance(found, NotWritten) else None

    async def scale(self, app: str, deployment: str, count: int) -> NotWritten | None:
        """Set the replicas of a deployment; why they were not, or None. That it was taken does not mean that it is done."""
        path = f"/api/v1/applications/{quote(app, safe='')}/deployments/{quote(deployment, safe='')}/scale"
        found = await self._ask("POST", path, {"target_num_replicas": count})
        return found if isinstance(found, NotWritten) else None

    async def _ask(self, method: str, path: str, body: Mapping[str, Json] | None) -> "httpx.Response | NotWritten":
        import httpx

        headers = {}
        if self._bearer is not None:
            try:
                headers["authorization"] = f"Bearer {_token(self._bearer)}"
            except (OSError, ValueError) as error:
                return NotWritten(0, "NoToken", f"the token {self._bearer} cannot be read: {in_words(error)}")
        try:
            answer = await self._client.request(method, f"{self._url}{path}", json=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:
            return NotWritten(0, "NoAnswer", f"{self._shown} does not answer: {in_words(error)}")
        if answer.is_success:
            return answer
        said = answer.text.strip().splitlines()
        return NotWritten(answer.status_code, "Refused", f"HTTP {answer.status_code} {said[0][:200] if said else ''}".strip())


def _token(path: str) -> str:
    return Path(path).read_text("utf-8").strip()
