"""What the control process and the gateway processes tell each other: msgpack with a length in front.

    control -> gateway   Welcome or TurnedAway, RoutingTable (the whole present state, whenever it changes and at every scrape),
                         Grant, Refusal, SpentElsewhere
    gateway -> control   Hello, Report (what was counted, several times a second), Trouble, Wait, Gone, Spent

Control and gateways may be one VERSION apart, either way, so that they are replaced one after another:

    a new field     stands last, and has a default: what a peer means that does not know it. It is never needed
    a new message   is sent only to a peer that said, or was told, a VERSION that has it
    nothing else    no field is taken away, moved, or given another meaning or type, and no message another tag

Both sides load the same resolved scenario and lay it out with the same function, so numbers of endpoints, instances, models,
regions and tiers mean the same. When the control process is gone, a gateway goes on with the last table. It is a plain value:
what else may serve it (a file, xDS) needs no more than this. Must not know sockets. Read next: `link.py`, which does;
tests/live/wire_before.py, the VERSION before.
"""

import zlib
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from sageserve.base.config import Scenario
from sageserve.base.units import Micros
from sageserve.core.layout import Layout

FRAME_MAX: Final = 64 << 20  # bytes of one message; a table of ten thousand instances is about 2 MB
VERSION: Final = 6
"""Of this protocol."""
OLDEST: Final = VERSION - 1
"""That is understood."""
_OF_A_MACHINE: Final = {"host", "port", "tls", "workers", "link", "store", "inherit", "records", "log_level"}
ANYWHERE: Final = -1
"""Endpoint of work that is routed like an interactive request."""


class EndpointRow(Struct, frozen=True, array_like=True):
    """Signals of one endpoint as of the last scrape: the columns of `core/columns.py` that routing reads."""

    seen: float
    kv: float
    busy: float
    rate: float  # engine microseconds offered per microsecond, smoothed
    backlog: float  # microseconds of prefill not finished, of all gateways together
    kv_tokens: int
    open: int


class InstanceRow(Struct, frozen=True, array_like=True):
    """An instance that serves or drains. Others are not in the table."""

    row: int
    endpoint: int
    url: str  # such as http://127.0.0.1:9000
    served_model: str  # the name its engine knows the model by
    open: bool  # may receive requests
    elsewhere: int  # outstanding tokens (times weight) that the other gateways sent there
    profile: int  # row of the layout's profiles
    well: bool = True  # False: nothing comes from it; requests there that have no first byte go elsewhere
    unfinished: int = 0  # prompt tokens that the other gateways sent there and whose first token has not come
    revision: int = -1  # that it runs, of a model that is rolled out and judged: what its requests got is counted by it; -1: not
    trial: bool = False  # it is a canary: it gets its share of the requests, and no more


class AsleepRow(Struct, frozen=True, array_like=True):
    """An endpoint that may have no instance, and has none that is open."""

    endpoint: int
    coming: bool  # one is being started
    failures: int  # starts since control began that came to nothing
    lasting: bool  # several in a row: waiting for the next one is hardly worth it
    left: Micros  # how long the start will take yet, as far as is known
    why: str  # why there is none, in words; empty: nobody asked


class RoutingTable(Struct, frozen=True, tag="table"):
    """The present state; replaces the one before."""

    version: int
    epoch: str  # of the control process: a new one starts its versions again
    scraped: Micros  # control's clock; `age` says how old it was when sent
    age: Micros
    endpoints: tuple[EndpointRow, ...]
    instances: tuple[InstanceRow, ...]
    output_mean: tuple[float, ...]  # tokens, by model x tier
    gateways: int  # this gateway's share of admission and of rate limits is one of so many
    note: str = ""  # why nothing is open, for error messages
    asleep: tuple[AsleepRow, ...] = ()


class Grant(Struct, frozen=True, tag="grant"):
    """A waiting request may go now, to this endpoint; ANYWHERE: it is promoted, and routed like an interactive one."""

    ticket: int
    endpoint: int


class Refusal(Struct, frozen=True, tag="refusal"):
    """A waiting request waited too long: it is to be refused with a Retry-After."""

    ticket: int
    retry_after: Micros


class Welcome(Struct, frozen=True, tag="welcome"):
    """First message to a gateway that is listened to; since VERSION 6."""

    protocol: int  # the newest VERSION that both know
    secret: str = ""  # of this fleet's own processes, told where the gateway has shown who it is; empty: it has it, or gets none


class TurnedAway(Struct, frozen=True, tag="turned-away"):
    """Last message to a gateway that is not listened to; since VERSION 6."""

    why: str


class Hello(Struct, frozen=True, tag="hello"):
    """First message of a gateway."""

    protocol: int  # the newest VERSION that it knows
    worker: int
    nonce: str  # of this process, like that of no other: its counts go on with the last ones under the same name
    layout: str = ""  # `layout_mark` of what it works with: numbers of another one mean something else
    stays: bool = False  # it speaks for another, such as an Envoy, whose requests go on when this process ends
    oldest: int = 0  # VERSION that it knows; 0: no older one than `protocol`
    host: str = ""  # name of its machine or pod: numbers of processes are told apart by it
    release: str = ""  # of the program
    settings: str = ""  # mark of all settings it has


class InstanceCount(Struct, frozen=True, array_like=True):
    """What one gateway has at one instance."""

    row: int
    in_flight: int  # requests sent and not come back
    outstanding: int  # tokens times weight
    failures: int  # connections refused or broken before the first byte, cumulative
    unfinished: int = 0  # prompt tokens sent whose first token has not come


class EndpointCount(Struct, frozen=True, array_like=True):
    """Cumulative since the gateway began."""

    endpoint: int
    offered: float  # microseconds of engine time
    backlog: float  # microseconds of prefill not finished: not cumulative
    placed: int
    freed: int  # iterations of open instances that finished a request: moments at which the feed rule asks


class CellCount(Struct, frozen=True, array_like=True):
    """Cumulative since the gateway began, by (region x models + model) x tiers + tier."""

    cell: int
    prompt_tokens: int
    output_tokens: int  # of finished requests
    requests: int
    work: float  # microseconds of the model's fastest engine
    finished: int
    refused: int
    on_time: int
    could: int = 0  # of the requests, interactive: an idle engine would have served them in time


class MixCount(Struct, frozen=True, array_like=True):
    """Cumulative since the gateway began: what waits depend on, of a model's interactive requests."""

    model: int
    counted: tuple[float, ...]  # columns as in `core/response.py`


class AnswerCount(Struct, frozen=True, array_like=True):
    """Cumulative since the gateway began: answers of an interactive tier; only where a tier promises a pace (`itl`)."""

    row: int  # model x tiers + tier
    counted: tuple[float, ...]  # columns as in `core/pace.py`


class RevisionCount(Struct, frozen=True, array_like=True):
    """Cumulative since the gateway began: interactive requests that instances of a revision were asked, one number per tier."""

    model: int
    revision: int
    asked: tuple[int, ...]
    missed: tuple[int, ...]  # of these, promises broken


class WaitingCount(Struct, frozen=True, array_like=True):
    """Requests of a cell that wait because nothing is open that may serve them: not cumulative."""

    cell: int
    requests: int


class Report(Struct, frozen=True, tag="report"):
    """What a gateway counted; only rows that are not zero."""

    version: int  # of the table it works with
    endpoints: tuple[EndpointCount, ...]
    instances: tuple[InstanceCount, ...]
    cells: tuple[CellCount, ...]
    mixes: tuple[MixCount, ...]
    output_mean: tuple[float, ...]  # tokens, by model x tier, as this gateway saw them
    streams: int  # open now
    revisions: tuple[RevisionCount, ...] = ()
    held: tuple[WaitingCount, ...] = ()
    answers: tuple[AnswerCount, ...] = ()


class Trouble(Struct, frozen=True, tag="trouble"):
    """An instance refused or broke a connection, or is mute; the gateway leaves it out until the next table."""

    row: int
    what: str
    mute: bool = False  # it takes requests, and nothing comes from it: whether it is well is not seen from its metrics


class Wait(Struct, frozen=True, tag="wait"):
    """A request of a batch tier that a client waits for: queue it with the jobs, and say when it may go."""

    ticket: int
    region: int
    model: int
    tier: int
    prompt_tokens: int
    patience: Micros  # how long the client waits at most
    owner: str = ""  # name of the client's key


class Gone(Struct, frozen=True, tag="gone"):
    """The client of a waiting request left, or the granted request is done."""

    ticket: int


class KeySpent(Struct, frozen=True, array_like=True):
    """What the keys of one name used in a day."""

    name: str
    tokens: int
    micro_dollars: int


class Spent(Struct, frozen=True, tag="spent"):
    """What was used through a gateway process on a day, cumulative; only keys with a budget."""

    day: int  # since 1970, UTC
    keys: tuple[KeySpent, ...]


class SpentElsewhere(Struct, frozen=True, tag="elsewhere"):
    """What was used on a day through all other gateway processes, those that are gone among them."""

    day: int
    keys: tuple[KeySpent, ...]


ToGateway: TypeAlias = RoutingTable | Grant | Refusal | SpentElsewhere | Welcome | TurnedAway
ToControl: TypeAlias = Hello | Report | Trouble | Wait | Gone | Spent


def common_version(hello: Hello) -> int:
    """The newest VERSION that a gateway and we both know; 0: none, it is too old or too new."""
    newest = min(VERSION, hello.protocol)
    return newest if newest >= max(OLDEST, hello.oldest or hello.protocol) else 0


def layout_mark(layout: Layout) -> str:
    """Equal for two layouts in which the numbers of these messages mean the same."""
    pools = [(pool.name, pool.begin, pool.end, pool.profile) for pool in layout.pools]
    return f"{zlib.crc32(repr((layout.names, len(layout.roles), layout.slots, pools)).encode()):08x}"


def settings_mark(scenario: Scenario) -> str:
    """Equal for two processes of one release with the same settings, but for those of a machine."""
    return f"{zlib.crc32(scenario.model_dump_json(exclude={'live': _OF_A_MACHINE}).encode()):08x}"


encode: Final = msgspec.msgpack.Encoder().encode
decode_to_gateway: Final = msgspec.msgpack.Decoder(ToGateway).decode
decode_to_control: Final = msgspec.msgpack.Decoder(ToControl).decode
