"""The vault as a part of the server: who may do what with which objects.

Agents put and get, in all repositories of their tenant; what is stored stays as it is. To delete takes a token for it,
or being the maintenance agent of the repository.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Annotated

from aiohttp import web
from pydantic import Field, StringConstraints

from control.api.call import Call
from control.api.problems import Forbidden, Problem, Unknown
from control.api.routes import AGENTS, PEOPLE, Routes
from control.repositories.tables import RepositoryRow
from control.services import Part, Services
from control.vault import streams
from control.vault.deletions import Deletions
from control.vault.names import is_allowed
from control.vault.shelf import Shelf
from control.vault.uploads import Wanted
from control.vault.vault import Vault
from model.errors import Exists, Missing, StoreError, StoreFull, Transient
from model.wire.base import Answer, Body, Count, Utc

routes = Routes()
GET, PUT, DELETE = "vault:get", "vault:put", "vault:delete"  # scopes
_ROOT = "/api/v1/vault/{repository_uuid}"
_OBJECT = _ROOT + "/objects/{name:.+}"
_ALL = PEOPLE | AGENTS
_TIDY_SECONDS = 3600.0
_PROBLEMS: dict[type[StoreError], tuple[int, str]] = {
    Missing: (404, "not-found"),
    Exists: (412, "exists"),
    StoreFull: (507, "full"),
    Transient: (409, "again"),
}
Name = Annotated[str, StringConstraints(max_length=1024)]


class ListQuery(Body):
    """Objects whose names begin with `prefix` and come after `after`, by name."""

    prefix: Name = ""
    after: Name = ""
    limit: Annotated[int, Field(ge=1, le=5_000)] = 1_000


class ObjectInfo(Answer):
    """One object; `modified_at` is when it was stored, by the server's clock."""

    name: str
    size: int
    modified_at: Utc


class ObjectPage(Answer):
    """`next` is what to give as `after` for the next page."""

    items: list[ObjectInfo]
    next: str | None = None


class UploadQuery(Body):
    """Which upload: that of an object of `size` bytes and this digest."""

    size: Count
    blake3: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class UploadState(Answer):
    """How many bytes are here from an upload that broke; those may be left out of the next."""

    received: int


@routes.add("GET", _ROOT + "/objects", scope=GET, principals=_ALL, query=ListQuery, returns={200: ObjectPage},
            limit="data")  # fmt: skip
async def list_objects(call: Call) -> ObjectPage:
    """List objects of a repository by name."""
    query = call.query(ListQuery)
    row = await _repository(call)
    with _told():
        shelf = await _shelf(call, row)
        found, more = await streams.threaded(shelf.page, query.prefix, query.after, query.limit)
    items = [ObjectInfo(name=one.name, size=one.size, modified_at=_moment(one.written)) for one in found]
    return ObjectPage(items=items, next=found[-1].name if more else None)


@routes.add("HEAD", _OBJECT, scope=GET, principals=_ALL, returns={200: None}, limit="data")
async def look(call: Call) -> web.StreamResponse:
    """Tell the size of an object, and when it was stored."""
    row, name = await _asked(call)
    with _told():
        shelf = await _shelf(call, row)
        size, written = await streams.soon(shelf.told, name)
    return web.Response(headers=streams.headers_of(size, written))


@routes.add("GET", _OBJECT, scope=GET, principals=_ALL, returns={200: None, 206: None}, streaming=True, limit="data")
async def get_object(call: Call) -> web.StreamResponse:
    """Send an object, or one range of it."""
    row, name = await _asked(call)
    with _told():
        shelf = await _shelf(call, row)
        size, written = await streams.soon(shelf.told, name)
        return await streams.sent(call.request, shelf, name, written, streams.span(call.request, size))


@routes.add("PUT", _OBJECT, scope=PUT, principals=_ALL, returns={201: None}, streaming=True, limit="data")
async def put_object(call: Call) -> web.StreamResponse:
    """Store an object under a name that is free, or the rest of one whose upload broke."""
    row, name = await _asked(call)
    wanted = streams.wanted(call.request, name)
    with _told():
        await streams.received(call.request, await _shelf(call, row), wanted)
    return web.Response(status=201)


@routes.add("DELETE", _OBJECT, scope=DELETE, principals=_ALL, returns={204: None}, limit="data")
async def delete_object(call: Call) -> None:
    """Delete an object: for maintenance only."""
    row, name = await _asked(call)
    if call.principal.kind == "agent" and call.principal.uuid != row.maintenance_agent_uuid:
        raise Forbidden("only the maintenance agent of a repository may delete from it")
    deletions = call.services.part(Deletions)
    async with deletions.batch(row.tenant_id, call.principal, row.uuid, call.remote) as batch:
        with _told():
            shelf = await _shelf(call, row)
            batch.add(name, await streams.threaded(shelf.delete, name))
    call.services.log.info("object deleted", repository=str(row.uuid), name=name)


@routes.add("GET", _ROOT + "/uploads/{name:.+}", scope=PUT, principals=_ALL, query=UploadQuery,
            returns={200: UploadState}, limit="data")  # fmt: skip
async def look_at_upload(call: Call) -> UploadState:
    """Tell how much of an object is here from an upload that broke."""
    row, name = await _asked(call)
    query = call.query(UploadQuery)
    wanted = Wanted(name, query.size, bytes.fromhex(query.blake3))
    with _told():
        shelf = await _shelf(call, row)
        return UploadState(received=await streams.soon(shelf.received, wanted))


async def _shelf(call: Call, row: RepositoryRow) -> Shelf:
    vault = call.services.part(Vault)
    return await streams.soon(vault.shelf, row.tenant_id, row.uuid, row.quota_bytes)


async def _repository(call: Call) -> RepositoryRow:
    """The repository of the path, if it is of this tenant and in the vault. Raises Unknown."""
    uuid = call.uuid("repository_uuid")
    async with call.reading() as db:
        row = await db.get(RepositoryRow, uuid)
    if row is None or row.tenant_id != call.tenant or not row.vault or row.removed_at is not None:
        raise Unknown("repository")
    return row


async def _asked(call: Call) -> tuple[RepositoryRow, str]:
    """The repository of the path, and the name of an object. Raises Unknown, Problem."""
    row, name = await _repository(call), call.request.match_info["name"]
    if not is_allowed(name):
        raise Problem("no object can have this name", status=422, kind="invalid")
    return row, name


def _moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds // 10**9, UTC)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turns what a shelf raises into problems. What it says of paths of the server stays in the log."""
    try:
        yield
    except StoreError as error:
        found = _PROBLEMS.get(type(error))
        if found is None:
            raise
        headers = {"Retry-After": "1"} if isinstance(error, Transient) else {}
        raise Problem(str(error), status=found[0], kind=found[1], headers=headers) from error


def folder_of(services: Services) -> str:
    """Where the vault lies."""
    return os.path.join(services.settings.data_dir, "vault")


@contextlib.asynccontextmanager
async def start(services: Services) -> AsyncIterator[None]:
    """The vault itself, in every process."""
    services.keep(Vault(folder_of(services)))
    deletions = Deletions(services.sessions, services.log)
    services.keep(deletions)
    task = asyncio.create_task(deletions.run(services.stopping))
    try:
        yield
    finally:
        services.stopping.set()
        await task
        await deletions.finish()


@contextlib.asynccontextmanager
async def lead(services: Services) -> AsyncIterator[None]:
    """Look after what interrupted uploads left, at the start and now and then."""
    task = asyncio.create_task(_tidy(services))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _tidy(services: Services) -> None:
    vault, recount = Vault(folder_of(services)), True
    while True:
        try:
            recount = not await streams.threaded(vault.tidy, recount)
        except StoreError as error:
            services.log.warning("cannot tidy the vault", error=str(error))
        await asyncio.sleep(_TIDY_SECONDS)


async def used(services: Services, row: RepositoryRow) -> int:
    """Bytes that a repository takes in the vault. Raises StoreError."""
    return await streams.soon(services.part(Vault).used, row.tenant_id, row.uuid)


part = Part("vault", routes, start, lead)
