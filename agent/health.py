"""What an agent says about itself with each heartbeat."""

from __future__ import annotations

import os
import platform
import shutil
import time
from pathlib import Path

import psutil

from agent.config import AgentConfig
from agent.hooks import available
from agent.work_dir import WorkDir
from model import __version__
from model.wire.agents import Disk, Health

SKEW_SECONDS = 30.0  # from which on a wrong clock is worth a warning
LITTLE_BYTES = 200 << 20  # free on the disk of the working directory
_BEGAN = time.monotonic()


def health(
    config: AgentConfig, work: WorkDir, *, skew: float | None, spooled: int, revision: int, warnings: list[str]
) -> Health:
    """Versions, room, clock, and what an operator should look at. `skew`: seconds that the host is ahead."""
    disks = [disk for path in (work.root, Path("/")) if (disk := _disk(path)) is not None]
    told = list(warnings)
    if skew is not None and abs(skew) > SKEW_SECONDS:
        told.append(f"the clock of this host is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the server's")
    if disks and disks[0].free < LITTLE_BYTES:
        told.append(f"there is little room left for the working directory: {disks[0].free >> 20} MiB")
    return Health(
        version=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()}"[:200],
        uptime_seconds=time.monotonic() - _BEGAN,
        memory_bytes=psutil.Process().memory_info().rss,
        clock_skew_seconds=None if skew is None else round(skew, 3),
        disks=disks,
        spooled_events=spooled,
        policy_revision=revision,
        hooks=available(config.hooks_dir)[:256],
        warnings=[text[:500] for text in told[:32] if text],
    )


def _disk(path: Path) -> Disk | None:
    try:
        found = shutil.disk_usage(path)
    except OSError:
        return None
    return Disk(path=os.fspath(path), free=found.free, total=found.total)
