"""check: is everything a snapshot needs there and whole, and if not, which files does it concern.

Levels, each with all of the ones before it:

- ``presence`` lists every object and compares packs and their sizes with the index.
- ``structure`` opens all but the content of packs, and follows every manifest to places in packs.
- ``data`` also reads packs from end to end and recomputes every chunk id.

`repository.keyless` looks at checksums only and needs no password. Damage is what a check is for: it is reported as a
finding and raises nothing; the check goes on with what is left.
"""

from __future__ import annotations

from model.errors import UsageError
from repository.diagnosis import LEVELS, Diagnosis, Scope
from repository.findings import FILES_LISTED, CheckReport, Finding, Progress
from repository.repository import Repository
from repository.verified import VerifiedLog

__all__ = ["FILES_LISTED", "LEVELS", "CheckReport", "Finding", "Progress", "check"]


def check(
    repository: Repository,
    level: str = "structure",
    subset: float | None = None,
    progress: Progress = lambda what, done, total: None,
    verified: VerifiedLog | None = None,
    rolling: bool = False,
) -> CheckReport:
    """Check a repository. With level ``data``, `subset` is the share of pack bytes to read.

    They are chosen at random, or with `rolling` as those whose last reading, as `verified` remembers it, is longest
    ago. What is read is written to `verified` at once. Raises UsageError for arguments that make no sense, and what
    `progress` raises; for damage nothing.
    """
    if level not in LEVELS:
        raise UsageError("unknown level of check", subject=level, hint=" or ".join(LEVELS))
    if subset is not None and not 0 < subset <= 1:
        raise UsageError(
            "the share of data to read is out of range", subject=str(subset), hint="above 0 %, up to 100 %"
        )
    scope = Scope(level, subset, rolling, verified or VerifiedLog(None), progress)
    return Diagnosis(repository, scope).run()
