"""upload: put finished packs into the store; download is its reverse."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum, auto
from typing import Generic

from model.batches import PackBytes, R, Receipt, Sealed, Stored
from model.errors import Damaged, Missing
from model.orders import Fetched, Order
from repository.pack import HEADER_SIZE, pack_name
from runtime.stage import Context, Stage
from stages.access import RepositoryAccess, RequestsTold
from stages.ground import GROUND, check_store

UNDER_WAY = 2  # packs a lane may have on their way to the store while it fills the next, unless told otherwise
HEADS_KEPT = 256  # pack heads a lane remembers


class Release(Enum):
    """When rows pass on. A lane that did not seal the packs itself cannot know which of them the rows need."""

    STORED = auto()  # once the packs they need are stored; compress to upload are one strand
    AT_ONCE = auto()  # the sink finds out itself what is stored
    FLUSHED = auto()  # when all lanes are flushed


class Uploader(Stage[Sealed[R], Stored[R]], Generic[R]):
    """Stores packs beside the lane's other work, `under_way` at once, and passes rows on as `release` says."""

    def __init__(
        self,
        access: RepositoryAccess,
        dry_run: bool = False,
        under_way: int = UNDER_WAY,
        release: Release = Release.STORED,
    ) -> None:
        self.access = access
        self.dry_run = dry_run
        self.under_way = under_way
        self.release = release

    def open(self, context: Context) -> None:
        if GROUND in context.services and not self.dry_run:
            check_store(context.services, self.access.repository.store)
        self._pool = ThreadPoolExecutor(self.under_way, thread_name_prefix="upload")
        self._under_way: deque[tuple[Future[None], Receipt, int]] = deque()
        self._held: deque[tuple[int, R]] = deque()
        self._stored = 0  # this lane's segments that lie in stored packs
        self._requests = RequestsTold(context)

    def push(self, item: Sealed[R]) -> Iterator[Stored[R]]:
        if item.content is not None:
            self._held.append((item.needs, item.content))
        receipts: list[Receipt] = []
        for pack in item.packs:
            receipts += self._collect(room_for=1)
            self._under_way.append((self._pool.submit(self._put, pack), pack.receipt, item.sealed))
        receipts += self._collect()
        self._requests.tell()
        if stored := self._release(receipts):
            yield stored

    def flush(self) -> Iterator[Stored[R]]:
        receipts = self._collect(room_for=self.under_way)
        self._requests.tell(last=True)
        if stored := self._release(receipts, flushed=True):
            yield stored

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _put(self, pack: PackBytes) -> None:
        try:
            if not self.dry_run:
                self.access.repository.store.put(pack_name(pack.pack_id), pack.parts)
        finally:
            pack.release()

    def _collect(self, room_for: int = 0) -> list[Receipt]:
        """Receipts of packs that are stored by now; waits until `room_for` more may be under way."""
        receipts = []
        while self._under_way:
            future, receipt, sealed = self._under_way[0]
            if not future.done() and len(self._under_way) + room_for <= self.under_way:
                break
            future.result()
            self._under_way.popleft()
            self._stored = sealed
            receipts.append(receipt)
        return receipts

    def _release(self, receipts: list[Receipt], flushed: bool = False) -> Stored[R] | None:
        contents = []
        waiting: deque[tuple[int, R]] = deque()
        for needs, content in self._held:
            if self._may_go(needs, flushed):
                contents.append(content)
            else:
                waiting.append((needs, content))
        self._held = waiting
        return Stored(contents, receipts) if contents or receipts else None

    def _may_go(self, needs: int, flushed: bool) -> bool:
        if self.release is Release.STORED:
            return needs <= self._stored
        return needs == 0 or flushed or self.release is Release.AT_ONCE


class Downloader(Stage[Order, Fetched]):
    """Fetches the range of a pack that an order asks for, and once per pack the head that holds its keys."""

    def __init__(self, access: RepositoryAccess) -> None:
        self.access = access

    def open(self, context: Context) -> None:
        self._heads: dict[bytes, bytes] = {}
        self._requests = RequestsTold(context)
        self.access.report_to(context)

    def push(self, item: Order) -> Iterator[Fetched]:
        name = pack_name(item.pack_id)
        begin = int(item.segment_offset[0])
        size = int(item.segment_offset[-1]) + int(item.segment_stored[-1]) - begin
        try:
            head = self._head(item.pack_id, name)
            data = self._range(name, begin, size)
        except (Missing, Damaged) as error:
            yield Fetched(item, b"", [memoryview(b"")] * len(item.segment_offset), self._all(item, str(error)))
            return
        sealed, trouble = [], {}
        for number, (offset, stored) in enumerate(
            zip(item.segment_offset.tolist(), item.segment_stored.tolist(), strict=True)
        ):
            sealed.append(data[offset - begin : offset - begin + stored])
            if len(sealed[-1]) != stored:
                trouble[number] = f"pack {name} ends before its segment {int(item.segment_ordinal[number])}"
        self._requests.tell()
        yield Fetched(item, head, sealed, trouble)

    def _range(self, name: str, begin: int, size: int) -> memoryview:
        repository = self.access.repository
        data = repository.store.get(name, begin, size)
        if len(data) < size and len(again := repository.store.get(name, begin, size)) == size:
            repository.rereads.note(name)
            data = again
        return memoryview(data)

    def flush(self) -> Iterator[Fetched]:
        self._requests.tell(last=True)
        return iter(())

    def _head(self, pack_id: bytes, name: str) -> bytes:
        if pack_id not in self._heads:
            if len(self._heads) >= HEADS_KEPT:
                self._heads.clear()
            self._heads[pack_id] = self.access.repository.store.get(name, 0, HEADER_SIZE)
        return self._heads[pack_id]

    @staticmethod
    def _all(order: Order, why: str) -> dict[int, str]:
        return dict.fromkeys(range(len(order.segment_offset)), why)
