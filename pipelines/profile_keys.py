"""Every key a profile may hold: what it is called, what may stand there, what it does. The one source of truth.

The loader, the JSON Schema, the reference in docs/pipelines.md and `--set` all go by this table. A key is here only if
something acts on it. Values are reached by key, so they have a type: ``profile[LEVEL]`` is ``int | None``, and None
is `auto`: then the program decides, as `automatic` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from model.batches import BODY_MAX, ROWS_MAX
from pipelines.options import BACKUP, COPY, LANES_MAX, MEMORY_LEAST, MIB, RESTORE
from pipelines.profile_kinds import Choice, Kind, Labels, Names, PowerOfTwo, Rate, Size, Text, Whole

V = TypeVar("V")

KIB = 1 << 10
VERSION = 1  # of what profiles look like
SEGMENT_MAX = 32 * MIB
STAGES = tuple(dict.fromkeys((*BACKUP, *RESTORE, *COPY)))


@dataclass(frozen=True, slots=True)
class Key(Generic[V]):
    """A dotted path with what may stand there.

    `automatic` says what `auto` means; a key without it has no `auto` and may only be left out. `default` is what holds
    where no profile says anything; None: `auto`.
    """

    path: str
    kind: Kind[V]
    meaning: str
    automatic: str = ""
    default: V | None = None


VERSION_KEY = Key("version", Whole(VERSION, VERSION), "What profiles look like; a profile must say it.")
EXTENDS = Key("extends", Text(1000), "A profile this one starts from: its name, or a file beside this one.")
DESCRIPTION = Key("description", Text(400), "What the profile is for.")

EXECUTOR = Key("executor.kind", Choice(("auto", "inline", "threads", "ray")), "What runs the stages.", default="auto")
LANES = Key("executor.lanes", Whole(1, LANES_MAX), "Lanes of every stage that does not say otherwise.",
            "one for each core, as far as memory goes")  # fmt: skip
MEMORY = Key("executor.memory", Size(MEMORY_LEAST, 1 << 42), "What the whole run may take.", "512MiB")
NICE = Key("executor.nice", Whole(0, 19), "How much the run gives way to other programs for the processor.",
           "as the program was started")  # fmt: skip
IO_CLASS = Key("executor.io_class", Choice(("best-effort", "idle")), "The same for disks.",
               "as the program was started")  # fmt: skip

UPLOAD_LIMIT = Key("limits.upload", Rate(), "No faster than this to the store.", "LOX_LIMIT_UPLOAD, or no limit")
DOWNLOAD_LIMIT = Key(
    "limits.download", Rate(), "No faster than this from the store.", "LOX_LIMIT_DOWNLOAD, or no limit"
)
BATCHES_OPEN = Key("limits.batches_open", Whole(16, 1 << 20),
                   "Batches read but not in the manifest yet; with so many, packs are closed early.",
                   "as many as a third of the memory holds")  # fmt: skip

CHUNKER = Key(
    "chunker.kind", Choice(("gear", "fixed")), "For `lox init`: cut by content, or in equal lengths.", default="gear"
)
MINIMUM = Key("chunker.minimum", Size(64, 64 * MIB), "For `lox init`: the least length of a chunk.", "4KiB")
AVERAGE = Key("chunker.average", PowerOfTwo(KIB, 64 * MIB), "For `lox init`: the average length.", "64KiB")
MAXIMUM = Key("chunker.maximum", Size(KIB, 64 * MIB), "For `lox init`: the greatest length.", "4MiB")

CUT = Key("strands.cut", Names(STAGES), "Stages that begin a strand of their own: what comes to them is handed over.",
          "only where lanes or placement differ")  # fmt: skip

SCAN_THREADS = Key("stages.scan.threads", Whole(0, 64), "Threads that look at folders ahead.", "2")
BATCH_ITEMS = Key("stages.scan.batch.items", Whole(16, ROWS_MAX), "Entries in a batch.", str(ROWS_MAX))
BATCH_BYTES = Key("stages.scan.batch.bytes", Size(64 * KIB, BODY_MAX), "Bytes of files in a batch at most.",
                  "8MiB")  # fmt: skip
CODEC = Key(
    "stages.compress.codec", Choice(("zstd", "lz4", "gzip", "none")), "How new data is compressed.", default="zstd"
)
LEVEL = Key("stages.compress.level", Whole(-7, 19), "How hard; lz4 has 0 to 12, gzip 1 to 9, none has no level.",
            "zstd 2, lz4 0, gzip 6")  # fmt: skip
SEGMENT = Key(
    "stages.compress.segment", Size(64 * KIB, SEGMENT_MAX), "New data that is compressed and sealed as one.", "4MiB"
)
PACK_SIZE = Key("stages.encrypt.pack_size", Size(MIB, 128 * MIB), "Bytes at which a pack is full.",
                "8 to 64 MiB, as memory allows")  # fmt: skip
PACKS_UNDER_WAY = Key(
    "stages.upload.packs_under_way", Whole(1, 64), "Packs each lane may have on their way to the store.", "2"
)

UNREADABLE = Key("on_error.unreadable_file", Choice(("warn", "fail")),
                 "A file or folder that cannot be read: record it and go on, or end the run without a snapshot.",
                 default="warn")  # fmt: skip
CHANGED = Key("on_error.changed_while_reading", Choice(("warn", "retry_once", "retry", "fail")),
              "A file that changes while it is read: keep it with a remark, at once, or if it does not stand still "
              "when it is read once or (retry) three times more; fail: end the run instead.",
              default="retry")  # fmt: skip


def lanes_of(stage: str) -> Key[int]:
    """The key of a stage's lanes."""
    return Key(f"stages.{stage}.lanes", Whole(1, LANES_MAX), f"Copies of {stage} at work at once.", "executor.lanes")


def queue_items_of(stage: str) -> Key[int]:
    """The key of how many batches may wait before a stage that begins a strand."""
    return Key(f"stages.{stage}.queue.items", Whole(1, 1 << 16), f"Batches that may wait before {stage}.",
               "two for each lane before and behind")  # fmt: skip


def queue_bytes_of(stage: str) -> Key[int]:
    """The key of how many bytes may wait before a stage that begins a strand."""
    return Key(f"stages.{stage}.queue.bytes", Size(64 * KIB, 1 << 40),
               f"Bytes that may wait before {stage}, be worked on by it, or be about to come.",
               "its part of half the memory")  # fmt: skip


def placement_of(stage: str) -> Key[dict[str, str]]:
    """The key of the labels that hosts of a stage must have."""
    return Key(f"placement.{stage}", Labels(), f"Labels of the hosts that run {stage}; with the ray executor.",
               "any host")  # fmt: skip


def _stage_keys(stage: str) -> list[Key[Any]]:
    """What every stage has; before the first of a graph nothing waits."""
    queue: list[Key[Any]] = []
    if stage not in (BACKUP[0], RESTORE[0]):
        queue = [queue_items_of(stage), queue_bytes_of(stage)]
    return [lanes_of(stage), *queue]


_GENERAL: list[Key[Any]] = [
    VERSION_KEY, EXTENDS, DESCRIPTION, EXECUTOR, LANES, MEMORY, NICE, IO_CLASS, UPLOAD_LIMIT, DOWNLOAD_LIMIT,
    BATCHES_OPEN, CHUNKER, MINIMUM, AVERAGE, MAXIMUM, CUT, SCAN_THREADS, BATCH_ITEMS, BATCH_BYTES,
]  # fmt: skip
_OWN: dict[str, list[Key[Any]]] = {
    "compress": [CODEC, LEVEL, SEGMENT],
    "encrypt": [PACK_SIZE],
    "upload": [PACKS_UNDER_WAY],
}

KEYS: dict[str, Key[Any]] = {
    key.path: key
    for key in [
        *_GENERAL,
        *(key for stage in STAGES for key in (*_stage_keys(stage), *_OWN.get(stage, ()))),
        UNREADABLE,
        CHANGED,
        *(placement_of(stage) for stage in STAGES),
    ]
}
"""All keys by path, in the order in which they are explained."""

ABOUT = (VERSION_KEY.path, EXTENDS.path, DESCRIPTION.path)
"""Keys that are about the profile and are not handed down."""
