"""`sageserve batch`: hand in files of requests that may wait, look how far they are, fetch the answers.

Speaks OpenAI's Files and Batch APIs to the gateway, as any client does. Answers go to stdout or a
file, everything else to stderr. Read next: docs/reference/batch.md.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Never

import msgspec
import typer
from msgspec import Struct

from sageserve.base.errors import ConfigError, SageServeError, in_words
from sageserve.base.urls import shown_url
from sageserve.cli import batch_backup, batch_erase
from sageserve.cli.running import State, running_url
from sageserve.cli.urls import checked_url

if TYPE_CHECKING:
    import httpx

    from sageserve.live.batches.api_models import BatchShape

EXAMPLES = """[bold]Examples[/bold]

  sageserve batch submit requests.jsonl --wait [dim]— hand in, and watch until it is done[/dim]

  sageserve batch status [dim]— the latest batches[/dim]

  sageserve batch fetch batch_0a1b -o answers.jsonl

  sageserve batch cancel batch_0a1b
"""
_LOOK_S: Final = 1.0
_OVER: Final = frozenset(["completed", "failed", "expired", "cancelled"])
_PATIENCE_S: Final = 120.0  # the gateway may be started again meanwhile
_SHOWN: Final = 20

app = typer.Typer(
    help="Requests that may wait: hand in, watch, fetch.", no_args_is_help=True, epilog=EXAMPLES, rich_markup_mode="rich"
)

app.command()(batch_backup.backup)
app.command()(batch_backup.restore)
app.command()(batch_erase.erase)

Url = Annotated[str | None, typer.Option(metavar="URL", help="of the gateway", show_default="of the fleet that runs here")]
KeyVariable = Annotated[str, typer.Option("--key-env", metavar="NAME", help="environment variable that holds the API key")]
Id = Annotated[str, typer.Argument(metavar="ID", help="as `submit` printed it")]
_KEY: Final = "SAGESERVE_API_KEY"


class _Made(Struct):
    id: str


class _Message(Struct):
    message: str


class _Error(Struct):
    error: _Message


class _First(Struct):
    url: str = ""


@app.command()
def submit(  # noqa: PLR0913, PLR0917 # one argument per option
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a request per line, as OpenAI's Batch API has it")],
    endpoint: Annotated[str | None, typer.Option(help="what all lines ask", show_default="the url of the first line")] = None,
    window: Annotated[str, typer.Option(help="when it must be done: 24h, or fewer whole hours")] = "24h",
    wait: Annotated[bool, typer.Option("--wait", help="stay until it is over; Ctrl-C leaves it running")] = False,
    url: Url = None,
    key_env: KeyVariable = _KEY,
    state: State = None,
) -> None:
    """Upload a file and start a batch of it; prints the batch's id."""
    if not file.is_file():
        raise ConfigError(f"there is no file {file}", hint="give a JSONL file, one request per line")
    asked = endpoint or _first_url(file)
    with _gateway(url, key_env, state) as client:
        with file.open("rb") as content:
            upload = client.post("/v1/files", files={"file": (file.name, content)}, data={"purpose": "batch"})
        order = {"input_file_id": _read(upload, _Made).id, "endpoint": asked, "completion_window": window}
        batch = _read(client.post("/v1/batches", json=order), _Made).id
        typer.echo(batch)
        if wait:
            _finish(_watch(client, batch))
        else:
            typer.echo(f"look: sageserve batch status {batch}", err=True)


@app.command()
def status(  # one argument per option
    batch: Annotated[str | None, typer.Argument(metavar="[ID]", help="one batch; none: the latest")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="as the API has it")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="with an ID: stay until it is over")] = False,
    url: Url = None,
    key_env: KeyVariable = _KEY,
    state: State = None,
) -> None:
    """Say how far a batch is, or list the latest ones."""
    with _gateway(url, key_env, state) as client:
        if batch is None:
            answer = _checked(client.get("/v1/batches", params={"limit": _SHOWN}))
            if as_json:
                typer.echo(answer.text)
            else:
                _draw_list(_batches(answer.content))
            return
        found = _watch(client, batch) if wait else _get(client, batch)
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
    else:
        _draw(found)


@app.command()
def fetch(  # noqa: PLR0913, PLR0917 # one argument per option
    batch: Id,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="for the answers", show_default="stdout")
    ] = None,
    errors: Annotated[Path | None, typer.Option(metavar="FILE", help="for lines that did not succeed")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="until it is over")] = False,
    url: Url = None,
    key_env: KeyVariable = _KEY,
    state: State = None,
) -> None:
    """Fetch the answers of a batch that is over: a line per request, in the order they were handed in."""
    with _gateway(url, key_env, state) as client:
        found = _watch(client, batch) if wait else _get(client, batch)
        if found.status not in _OVER:
            raise SageServeError(f"{batch} is not over: {_progress(found)}", hint=f"sageserve batch fetch {batch} --wait")
        if found.output_file_id is not None:
            _download(client, found.output_file_id, out)
        if found.error_file_id is not None and errors is not None:
            _download(client, found.error_file_id, errors)
    failed = found.request_counts.failed
    if failed and errors is None:
        typer.echo(f"{failed:,} did not succeed: sageserve batch fetch {batch} --errors FILE", err=True)
    _finish(found)


@app.command()
def cancel(batch: Id, url: Url = None, key_env: KeyVariable = _KEY, state: State = None) -> None:
    """Stop a batch; answers that are there can be fetched."""
    with _gateway(url, key_env, state) as client:
        _checked(client.post(f"/v1/batches/{batch}/cancel"))
        typer.echo(f"{batch} is being cancelled: sageserve batch fetch {batch} --wait", err=True)


@contextmanager
def _gateway(url: str | None, key_env: str, state: Path | None) -> Iterator["httpx.Client"]:
    import httpx

    named = checked_url("--url", url, "http://127.0.0.1:8080") if url else running_url(state)
    base = named.rstrip("/").removesuffix("/v1")
    key = os.environ.get(key_env, "")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=base, headers=headers, timeout=_PATIENCE_S, trust_env=False) as client:
        try:
            yield client
        except httpx.HTTPError as error:
            said = f"the gateway at {shown_url(base)} does not answer ({in_words(error)})"
            raise SageServeError(said, hint="sageserve status") from None


def _checked(answer: "httpx.Response") -> "httpx.Response":
    if answer.is_success:
        return answer
    answer.read()
    try:
        said = msgspec.json.decode(answer.content, type=_Error).error.message
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = answer.text[:300] or "no reason given"
    hint = f"give a key in ${_KEY}, or name the variable with --key-env" if answer.status_code == 401 else ""
    raise SageServeError(f"the gateway refuses ({answer.status_code}): {said}", hint=hint)


def _read(answer: "httpx.Response", kind: type[_Made]) -> _Made:
    return msgspec.json.decode(_checked(answer).content, type=kind)


def _get(client: "httpx.Client", batch: str) -> "BatchShape":
    from sageserve.live.batches.api_models import BatchShape

    return msgspec.json.decode(_checked(client.get(f"/v1/batches/{batch}")).content, type=BatchShape)


def _batches(content: bytes) -> "list[BatchShape]":
    from sageserve.live.batches.api_models import BatchShape

    listed = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    return msgspec.json.decode(listed["data"], type=list[BatchShape])


def _first_url(file: Path) -> str:
    with file.open("rb") as lines:
        for text in lines:
            if text.strip():
                try:
                    return msgspec.json.decode(text, type=_First).url or _no_url(file)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    return _no_url(file)
    raise ConfigError(f"{file} is empty", hint="write one request per line")


def _no_url(file: Path) -> Never:
    example = '{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {...}}'
    raise ConfigError(f"the first line of {file} is not a request with a url", hint=f"a line looks like {example}")


def _watch(client: "httpx.Client", batch: str) -> "BatchShape":
    """Wait until it is over, and say how far it is; a gateway that is away for a moment is waited for."""
    import httpx

    shown, seen = "", time.monotonic()  # the command line waits for another process
    while True:
        try:
            found = _get(client, batch)
            seen = time.monotonic()
        except httpx.TransportError:
            if time.monotonic() - seen > _PATIENCE_S:
                raise
            time.sleep(_LOOK_S)
            continue
        if (now := _progress(found)) != shown:
            end = "\r" if sys.stderr.isatty() else "\n"
            print(f"{now:<70}", end=end, file=sys.stderr, flush=True)
            shown = now
        if found.status in _OVER:
            if sys.stderr.isatty():
                print(file=sys.stderr)
            return found
        time.sleep(_LOOK_S)


def _progress(batch: "BatchShape") -> str:
    counts = batch.request_counts
    failed = f", {counts.failed:,} failed" if counts.failed else ""
    return f"{batch.status}: {counts.completed:,} of {counts.total:,} done{failed}"


def _finish(batch: "BatchShape") -> None:
    """Explain a batch that did not go well."""
    if batch.status == "failed":
        errors = batch.errors.data if batch.errors else ()
        where = [f"line {error.line}: {error.message}" if error.line else error.message for error in errors[:3]]
        more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
        raise SageServeError(f"{batch.id} was not run: {' '.join(where)}{more}", hint="correct the file and submit it again")
    if batch.status == "expired":
        typer.echo(f"{batch.id} expired: its window of {batch.completion_window} was over", err=True)


def _download(client: "httpx.Client", file: str, out: Path | None) -> None:
    """Whole or not at all."""
    with client.stream("GET", f"/v1/files/{file}/content") as answer:
        _checked(answer)
        if out is None:
            for data in answer.iter_bytes():
                sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        part = out.with_name(f"{out.name}.part")
        try:
            with part.open("wb") as target:
                for data in answer.iter_bytes():
                    target.write(data)
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)
    typer.echo(f"wrote {out}", err=True)


def _draw_list(batches: "list[BatchShape]") -> None:
    from sageserve.cli.columns import StackedTable, terminal

    table = StackedTable()
    table.add_column("batch", no_wrap=True)  # to be copied
    table.add_column("model")
    table.add_column("status", no_wrap=True)
    for name in ("requests", "done", "failed", "time left"):
        table.add_column(name, justify="right")
    for one in batches:
        counts = one.request_counts
        table.add_row(
            one.id, one.model or "–", one.status, f"{counts.total:,}", f"{counts.completed:,}", f"{counts.failed:,}", _left(one)
        )
    if not batches:
        typer.echo("no batches yet: sageserve batch submit FILE", err=True)
        return
    terminal().print(table)


def _left(batch: "BatchShape") -> str:
    from sageserve.base.units import MINUTE, SECOND, show_duration

    left = batch.expires_at * SECOND - time.time_ns() // 1000
    return "" if batch.status in _OVER else show_duration(max(0, left) // MINUTE * MINUTE)


def _draw(batch: "BatchShape") -> None:
    usage = batch.usage
    lines = [f"{batch.id}  {_progress(batch)}", f"model      {batch.model or '–'}", f"asks       {batch.endpoint}"]
    if left := _left(batch):
        lines.append(f"time left  {left} of {batch.completion_window}")
    if usage.total_tokens:
        lines.append(f"tokens     {usage.input_tokens:,} in, {usage.output_tokens:,} out")
    if batch.status in _OVER and (batch.output_file_id or batch.error_file_id):
        lines.append(f"fetch      sageserve batch fetch {batch.id} -o answers.jsonl")
    errors = batch.errors.data if batch.errors else ()
    lines.extend("error      " + (f"line {error.line}: " if error.line else "") + error.message for error in errors)
    typer.echo("\n".join(lines))
