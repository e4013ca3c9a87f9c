"""What each stage costs on this host for a byte of some kind of files, measured alone in one thread, and kept.

    <state folder>/rates.json = JSON: the host as it was then, and for each sample the cost of each stage

`pipelines.bench` measures, `pipelines.predict` reckons with it. Costs are seconds for a byte: of what is read up to
dedup and for commit, of what is new for compress and encrypt, of what is stored for upload. They hold for files like
those of the sample, small or large, compressible or not: so there are rates for each source, beside those for made-up
files.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kernels
from model import __version__
from model.errors import ConfigError

RATES_MAX = 1 << 20  # bytes of the file
SAMPLES_KEPT = 64
FRESH_DAYS = 90
FORMAT = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds for a byte, by the clock and of a processor."""

    wall: float
    cpu: float

    @property
    def rate(self) -> float:
        """Bytes a second of one lane."""
        return 1.0 / max(self.wall, 1e-15)


@dataclass(frozen=True, slots=True)
class Packing:
    """What a codec at a level does with the sample. `encrypt` reads back what was compressed, so it depends on the
    codec as well. `stored`: bytes stored for a new byte."""

    codec: str
    level: int
    compress: Cost
    encrypt: Cost
    stored: float


@dataclass(frozen=True, slots=True)
class Crowding:
    """What it costs that threads work at once. `one` lane beside the caller's thread takes so many times the processor
    time of a single thread that does everything, `lanes` lanes take `several` times it: they share caches and memory.
    For each further lane that reads at the same time a byte waits `queueing` seconds longer for the disk."""

    lanes: int = 2
    one: float = 1.0
    several: float = 1.0
    queueing: float = 0.0

    def work(self, threads: int) -> float:
        """How many times the processor time is needed with so many threads at work; beyond what was measured nothing
        is known, and as much assumed."""
        part = min(threads - 1, self.lanes - 1) / (self.lanes - 1) if self.lanes > 1 else 0.0
        return self.one + (self.several - self.one) * max(0.0, part)


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the rates depend on beside the sample."""

    processor: str
    cores: int
    kernels: str
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Rates:
    """The costs of one sample. `new`: how much of what was read was new. `handover`: of a byte that goes from a
    strand to the next; all costs are those of one thread, `crowding` is what more of them change. `measured`: seconds
    since 1970."""

    sample: str
    files: int
    size: int
    new: float
    stages: Mapping[str, Cost]
    handover: Cost
    crowding: Crowding
    packings: tuple[Packing, ...]
    host: HostFacts
    measured: float

    def packing(self, codec: str, level: int) -> Packing | None:
        """What was measured for a codec at a level."""
        return next((one for one in self.packings if (one.codec, one.level) == (codec, level)), None)

    def stale(self, now: HostFacts, at: float) -> str:
        """Why these rates are not to be relied on any more, `at` seconds since 1970; empty if they are."""
        was = self.host
        if (was.processor, was.cores) != (now.processor, now.cores):
            return f"measured on {was.cores} cores of {was.processor}, these are {now.cores} of {now.processor}"
        if was.kernels != now.kernels:
            return f"measured with {was.kernels} kernels, these are {now.kernels}"
        changed = [name for name in now.versions if was.versions.get(name) != now.versions[name]]
        if changed:
            return f"measured with {changed[0]} {was.versions.get(changed[0], 'of unknown version')}"
        days = (at - self.measured) / 86400
        return f"measured {days:.0f} days ago" if days > FRESH_DAYS else ""


def host_facts() -> HostFacts:
    """This host as it is now."""
    versions = {"lox": __version__, "python": platform.python_version()}
    versions |= {name: version(name) for name in ("zstandard", "cryptography", "numpy")}
    return HostFacts(_processor(), usable_cores(), kernels.VARIANT, versions)


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            for line in file.read(RATES_MAX).splitlines():
                name, _, value = line.partition(":")
                if name.strip() in ("model name", "Model", "cpu model"):
                    return " ".join(value.split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


class RateBook:
    """The rates kept on this host. Trouble with the file is never more than having to measure again."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "rates.json"
        self._rates: dict[str, Rates] = {}
        try:
            with open(self._path, "rb") as file:
                self._rates = {one.sample: one for one in _decoded(file.read(RATES_MAX + 1))}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass

    def find(self, sample: str) -> Rates | None:
        """The rates of a sample, stale or not."""
        return self._rates.get(sample)

    def keep(self, rates: Rates) -> None:
        """Remember rates, readable for this user alone: the paths of sources are in them. Raises ConfigError."""
        self._rates.pop(rates.sample, None)
        self._rates[rates.sample] = rates
        newest = sorted(self._rates.values(), key=lambda one: one.measured)[-SAMPLES_KEPT:]
        data = json.dumps({"format": FORMAT, "rates": [asdict(one) for one in newest]}, indent=1)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd, temporary = tempfile.mkstemp(prefix=".rates-", dir=self._path.parent)  # 0600
            try:
                with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
                    file.write(data)
                os.replace(temporary, self._path)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as error:
            why = (error.strerror or "").lower()
            raise ConfigError("the measured rates cannot be kept", subject=str(self._path), why=why) from error


def _decoded(data: bytes) -> list[Rates]:
    """Rates from JSON; ValueError, KeyError or TypeError if it is not ours."""
    if len(data) > RATES_MAX:
        raise ValueError("too long")
    document = json.loads(data)
    if document["format"] != FORMAT:
        raise ValueError("another format")
    return [_rates_of(one) for one in document["rates"][:SAMPLES_KEPT]]


def _rates_of(fields: dict[str, Any]) -> Rates:
    host = fields["host"]
    facts = HostFacts(str(host["processor"]), int(host["cores"]), str(host["kernels"]), dict(host["versions"]))
    return Rates(
        str(fields["sample"]),
        int(fields["files"]),
        int(fields["size"]),
        float(fields["new"]),
        {str(name): _cost_of(cost) for name, cost in fields["stages"].items()},
        _cost_of(fields["handover"]),
        _crowding_of(fields["crowding"]),
        tuple(
            Packing(
                str(one["codec"]),
                int(one["level"]),
                _cost_of(one["compress"]),
                _cost_of(one["encrypt"]),
                float(one["stored"]),
            )
            for one in fields["packings"]
        ),
        facts,
        float(fields["measured"]),
    )


def _cost_of(fields: dict[str, Any]) -> Cost:
    return Cost(float(fields["wall"]), float(fields["cpu"]))


def _crowding_of(fields: dict[str, Any]) -> Crowding:
    return Crowding(int(fields["lanes"]), float(fields["one"]), float(fields["several"]), float(fields["queueing"]))
