"""`lox bench`: the roofline of this host. Each kernel alone in one thread, their sum, and what a run could reach.

A backup reads, cuts and hashes every byte, and compresses, encrypts and reads back every new one. One lane does that
one after the other, so the processor time for a byte is the sum over the kernels, and c cores do c bytes in that
time. Writing may be slower still; then the store is the limit. No run can be faster than this estimate unless it finds
more to deduplicate.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

import kernels
from lox.sample import Sample
from model.batches import PackBytes, Segment
from model.chunking import ChunkerParams
from model.entries import I64
from repository.codecs import Codec, by_name, compressor
from repository.keyring import KeyRing
from repository.pack import PackBuffers, PackKind, PackWriter
from repository.pack_keys import pack_name
from repository.store import LocalStore
from stages.compress import SEGMENT_BYTES, WORTH_IT, looks_incompressible

PASSES = 3  # each kernel runs so often; the best pass counts
SECONDS = 4.0  # and stops repeating after so long
PER_BYTE = ("read", "chunk", "hash")  # work on every byte that is read
PER_NEW_BYTE = ("compress", "encrypt", "verify", "write")  # work on every byte that is new

Segments = list[tuple[memoryview, int, bytes | memoryview]]  # plain, codec, compressed


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel over the sample. Rates count plain bytes, also where the work is on compressed ones."""

    name: str
    plain: int  # bytes
    wall: float  # seconds
    cpu: float

    @property
    def rate(self) -> float:
        """Plain bytes a second, alone in one thread."""
        return self.plain / max(self.wall, 1e-9)

    @property
    def cpu_per_byte(self) -> float:
        return self.cpu / max(self.plain, 1)


@dataclass(slots=True)
class Roofline:
    """What the kernels of this host can do with a sample."""

    sample: Sample
    cores: int
    codec: str
    level: int
    stored: int = 0  # bytes of the sample after compression and sealing
    kernels: list[Kernel] = field(default_factory=list)

    @property
    def cpu_per_byte(self) -> float:
        """Processor seconds for one new byte, all kernels together."""
        return sum(kernel.cpu_per_byte for kernel in self.kernels)

    def best_seconds(self, read: int, new: int, lanes: int | None = None) -> float:
        """The least a run needs that reads `read` bytes of which `new` are new: bound by processor or by writing."""
        named = {kernel.name: kernel for kernel in self.kernels}
        cpu = sum(named[name].cpu_per_byte for name in PER_BYTE) * read
        cpu += sum(named[name].cpu_per_byte for name in PER_NEW_BYTE) * new
        return max(cpu / min(self.cores, lanes or self.cores), new / named["write"].rate)

    @property
    def best_rate(self) -> float:
        """Plain bytes a second if everything is new."""
        return self.sample.total / max(self.best_seconds(self.sample.total, self.sample.total), 1e-9)

    @property
    def limit(self) -> str:
        """What sets `best_rate`: the processor, or writing to the store."""
        write = next(kernel for kernel in self.kernels if kernel.name == "write")
        return "processor" if self.cores / self.cpu_per_byte < write.rate else "store"


class Bench:
    """Measures one kernel after the other on a sample; `on_kernel` hears of each as it is done."""

    def __init__(
        self,
        sample: Sample,
        store_folder: str,
        codec: str = "zstd",
        level: int | None = None,
        on_kernel: Callable[[Kernel], None] = lambda kernel: None,
    ) -> None:
        self._codec, strength = by_name(codec, level)
        self._roofline = Roofline(sample, usable_cores(), codec, strength)
        self._folder = store_folder
        self._on_kernel = on_kernel
        self._keys = KeyRing.of(os.urandom(32), os.urandom(16))

    def run(self) -> Roofline:
        """All kernels, in the order in which a byte meets them."""
        body, starts, lengths = self._read()
        self._chunk_and_hash(body, starts, lengths)
        self._seal_and_write(self._compress(body))
        return self._roofline

    def _done(self, name: str, plain: int, times: tuple[float, float]) -> None:
        kernel = Kernel(name, plain, *times)
        self._roofline.kernels.append(kernel)
        self._on_kernel(kernel)

    def _read(self) -> tuple[memoryview, I64, I64]:
        """Read as the reader does; the kernels that follow work on what was read."""
        sample = self._roofline.sample
        body = bytearray(max(sample.total, 1))
        limits = np.array(sample.sizes, dtype=np.int64)
        root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _, lengths = kernels.read_files(root, sample.paths, limits, body)  # warms the page cache
            self._done("read", int(lengths.sum()), _best(lambda: kernels.read_files(root, sample.paths, limits, body)))
        finally:
            os.close(root)
        starts = np.cumsum(lengths) - lengths
        return memoryview(body)[: int(lengths.sum())], starts, lengths

    def _chunk_and_hash(self, body: memoryview, starts: I64, lengths: I64) -> None:
        table, params = kernels.gear_table(self._keys.chunker_key), ChunkerParams()
        ends, _ = kernels.cut_files(body, starts, lengths, table, params)
        self._done("chunk", len(body), _best(lambda: kernels.cut_files(body, starts, lengths, table, params)))
        # Files lie back to back, so a chunk begins where the one before it ends.
        begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
        sizes = (ends - begins).astype(np.uint32)
        self._done("hash", len(body), _best(lambda: kernels.hash_chunks(self._keys.id_key, body, begins, sizes)))

    def _compress(self, body: memoryview) -> Segments:
        """Segments as the compressor makes them, incompressible ones raw."""
        compress, probe = compressor(self._codec, self._roofline.level), compressor(Codec.ZSTD, 1)
        pieces = [body[at : at + SEGMENT_BYTES] for at in range(0, len(body), SEGMENT_BYTES)]
        segments: Segments = []

        def run() -> None:
            segments.clear()
            for plain in pieces:
                raw = self._codec == Codec.NONE or looks_incompressible(plain, probe)
                data = plain if raw else compress(plain)
                packed = not raw and len(data) <= len(plain) * WORTH_IT
                segments.append((plain, self._codec, data) if packed else (plain, Codec.NONE, plain))

        self._done("compress", len(body), _best(run))
        return segments

    def _seal_and_write(self, segments: Segments) -> None:
        """Seal with and without reading back, then store one pack durably."""
        buffers, total = PackBuffers(), sum(len(plain) for plain, _, _ in segments)
        no_chunks = np.zeros((0, 32), np.uint8), np.zeros(0, np.uint32), np.zeros(0, np.uint32)

        def fill(verify: bool) -> PackBytes:
            writer = PackWriter(self._keys, PackKind.DATA, buffers=buffers)
            for plain, codec, data in segments:
                segment = Segment(codec, len(plain), data, *no_chunks)
                writer.add(segment, verify_against=plain if verify else None)
            return writer.finish()

        fill(verify=True).release()  # touches the buffers for the first time
        sealed = _best(lambda: fill(verify=False).release())
        checked = _best(lambda: fill(verify=True).release())
        self._done("encrypt", total, sealed)
        self._done("verify", total, (max(0.0, checked[0] - sealed[0]), max(0.0, checked[1] - sealed[1])))
        pack = fill(verify=False)
        self._roofline.stored = pack.size
        store = LocalStore(self._folder)
        names = (pack_name(os.urandom(16)) for _ in range(PASSES))
        self._done("write", total, _best(lambda: store.put(next(names), pack.parts)))


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _best(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds of the fastest of a few passes."""
    best = (float("inf"), float("inf"))
    begin = time.perf_counter()
    for number in range(PASSES):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        best = min(best, (time.perf_counter() - wall, time.process_time() - cpu))
        if number and time.perf_counter() - begin > SECONDS:
            break
    return best
