"""Files in SQL: a row each, and their content in pieces.

Must not know batches. Read next: `sql.py`, which joins the parts.
"""

from typing import Final

from sqlalchemy import ColumnElement, Connection, CursorResult, Row, Table, and_, delete, insert, or_, select, update
from sqlalchemy.sql import Select

from sageserve.base.units import Micros
from sageserve.live.store.database import StorePart
from sageserve.live.store.models import File, ListRange, Unknown
from sageserve.live.store.tables import FILES, PIECES

_F: Final = FILES.c
_P: Final = PIECES.c
_COLUMNS: Final = (_F.id, _F.owner, _F.name, _F.purpose, _F.created_at, _F.expires_at, _F.size, _F.ready)


class SqlFiles(StorePart):
    """The part of a store that keeps files."""

    def begin_file(self, file: File) -> None:
        """A file that is not complete."""
        with self._database.transaction() as connection:
            _drop(connection, file.id)
            row = {name: getattr(file, name) for name in (column.name for column in _COLUMNS)}
            connection.execute(insert(FILES), row)

    def append(self, file: str, number: int, data: bytes) -> None:
        """Its next piece."""
        with self._database.transaction() as connection:
            if connection.scalar(select(_F.number).where(_F.id == file, ~_F.ready)) is None:
                raise _unknown(file)
            connection.execute(insert(PIECES), {"file": file, "number": number, "data": data})

    def finish_file(self, file: str, size: int) -> None:
        """It is complete."""
        with self._database.transaction() as connection:
            show_file(connection, file, size)

    def drop_file(self, file: str) -> None:
        """Forget one that is not complete."""
        with self._database.transaction() as connection:
            _drop(connection, file)

    def file(self, owner: str, file: str) -> File:
        """A complete file."""
        with self._database.reading() as connection:
            row = connection.execute(select(*_COLUMNS).where(_F.id == file, _F.owner == owner, _F.ready)).first()
        if row is None:
            raise _unknown(file)
        return _file(row)

    def files(self, owner: str, page: ListRange, purpose: str | None) -> list[File]:
        """Complete files."""
        wanted = select(*_COLUMNS).where(_F.owner == owner, _F.ready)
        if purpose is not None:
            wanted = wanted.where(_F.purpose == purpose)
        with self._database.reading() as connection:
            return [_file(row) for row in connection.execute(paged(connection, wanted, FILES, owner, page))]

    def piece(self, file: str, number: int) -> bytes | None:
        """A part of the content."""
        with self._database.reading() as connection:
            found = connection.scalar(select(_P.data).where(_P.file == file, _P.number == number))
        return None if found is None else bytes(found)

    def delete_file(self, owner: str, file: str) -> None:
        """Remove a complete file."""
        with self._database.transaction() as connection:
            gone = connection.execute(delete(FILES).where(_F.id == file, _F.owner == owner, _F.ready))
            if not changed(gone):
                raise _unknown(file)
            connection.execute(delete(PIECES).where(_P.file == file))
        self._database.forget()

    def expire_files(self, now: Micros) -> int:
        """Remove those whose time is over."""
        late = select(_F.id).where(_F.ready, _F.expires_at <= now)
        with self._database.transaction() as connection:
            ids = list(connection.scalars(late.limit(20)))  # a few at a time: others wait for this transaction
            connection.execute(delete(PIECES).where(_P.file.in_(ids)))
            connection.execute(delete(FILES).where(_F.id.in_(ids)))
        if ids:
            self._database.forget()
        else:
            self._database.forget_rest()
        return len(ids)

    def shorten_files(self, owner: str, keep: Micros) -> int:
        """Let an owner's files end sooner."""
        with self._database.transaction() as connection:
            return changed(connection.execute(update(FILES).where(_longer(owner, keep)).values(expires_at=_F.created_at + keep)))


def _longer(owner: str, keep: Micros) -> ColumnElement[bool]:
    return and_(_F.owner == owner, _F.ready, or_(_F.expires_at.is_(None), _F.expires_at > _F.created_at + keep))


def show_file(connection: Connection, file: str, size: int) -> None:
    """A file is complete.

    Raises:
        Unknown: it was dropped.
    """
    done = connection.execute(update(FILES).where(_F.id == file).values(size=size, ready=True))
    if not changed(done):
        raise _unknown(file)


def drop_incomplete(connection: Connection) -> None:
    """Forget what was being written when a process died."""
    connection.execute(delete(FILES).where(~_F.ready))
    connection.execute(delete(PIECES).where(_P.file.not_in(select(_F.id))))


def paged(
    connection: Connection, wanted: Select[*tuple[object, ...]], table: Table, owner: str, page: ListRange
) -> Select[*tuple[object, ...]]:
    """A part of a list.

    Raises:
        Unknown: it begins after something that is not there.
    """
    number = table.c.number
    if page.after is not None:
        last = connection.scalar(select(number).where(table.c.id == page.after, table.c.owner == owner))
        if last is None:
            raise Unknown(f"There is nothing with the id {page.after!r} to begin after.")
        wanted = wanted.where(number < last if page.newest_first else number > last)
    return wanted.order_by(number.desc() if page.newest_first else number).limit(page.limit)


def changed(done: CursorResult[*tuple[object, ...]]) -> int:
    """Rows that a statement changed."""
    return done.rowcount


def _drop(connection: Connection, file: str) -> None:
    gone = connection.execute(delete(FILES).where(_F.id == file, ~_F.ready))
    if changed(gone):
        connection.execute(delete(PIECES).where(_P.file == file))


def _file(row: Row[*tuple[object, ...]]) -> File:
    return File(**row._mapping)  # noqa: SLF001 # SQLAlchemy's name for a public attribute


def _unknown(file: str) -> Unknown:
    return Unknown(f"No such File object: {file}")
