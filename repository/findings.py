"""What a check finds, and which files of which snapshots it concerns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

FILES_LISTED = 1000  # paths a finding names; of more it gives the number

Progress = Callable[[str, int, int], None]
"""(what is being done, how much of it is done, how much there is); may raise to end the check."""


@dataclass(slots=True)
class Finding:
    """Something is wrong with the object `subject`. Files and snapshots are those that cannot be restored whole."""

    subject: str
    what: str
    snapshots: list[str] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)  # the first `FILES_LISTED`
    files_total: int = 0

    def affect(self, snapshots: list[str], paths: list[bytes]) -> None:
        """These paths of these snapshots are concerned."""
        self.snapshots += [snapshot for snapshot in snapshots if snapshot not in self.snapshots]
        self.files += paths[: FILES_LISTED - len(self.files)]
        self.files_total += len(paths)


@dataclass(slots=True)
class CheckReport:
    """What a check found. `notes` are remarkable and harmless, such as packs of a backup that was interrupted."""

    level: str
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    objects: int = 0
    snapshots: int = 0
    packs: int = 0
    packs_read: int = 0
    bytes_read: int = 0
    chunks: int = 0
    entries: int = 0
    files_restored: int = 0  # of a sample, to nowhere
    bytes_restored: int = 0
    snapshots_unreadable: list[str] = field(default_factory=list)  # names of their objects

    def finding(self, subject: str, what: str) -> Finding:
        """A new finding."""
        finding = Finding(subject, what)
        self.findings.append(finding)
        return finding

    @property
    def sound(self) -> bool:
        return not self.findings
