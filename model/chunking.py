"""Parameters of content-defined chunking, fixed when a repository is created."""

from __future__ import annotations

from dataclasses import dataclass

from model.errors import ConfigError

KIB = 1 << 10
MIB = 1 << 20
WINDOW = 64  # bytes a gear value depends on: a 64-bit word shifted by one for each byte


@dataclass(frozen=True, slots=True)
class ChunkerParams:
    """Lengths in bytes. `kind` is ``"gear"``, or ``"fixed"`` for disk images (every chunk `average` long)."""

    kind: str = "gear"
    minimum: int = 4 * KIB
    average: int = 64 * KIB
    maximum: int = 4 * MIB
    normalization: int = 2  # strict asks for so many bits more than log2(average), loose for so many fewer

    def __post_init__(self) -> None:
        if self.kind not in ("gear", "fixed"):
            raise ConfigError("unknown chunker", subject=self.kind, hint="use gear or fixed")
        if self.average & (self.average - 1):
            raise ConfigError("the average chunk length must be a power of two", subject=str(self.average))
        if not WINDOW <= self.minimum <= self.average <= self.maximum <= 64 * MIB:
            raise ConfigError(
                "chunk lengths out of order",
                subject=f"{self.minimum} <= {self.average} <= {self.maximum}",
                hint=f"need {WINDOW} <= minimum <= average <= maximum <= {64 * MIB}",
            )
        if not 0 <= self.normalization <= 8:
            raise ConfigError("chunker normalization out of range", subject=str(self.normalization))

    @property
    def strict_limit(self) -> int:
        """A gear value below this ends a chunk shorter than `average`."""
        return 1 << (64 - (self.average.bit_length() - 1) - self.normalization)

    @property
    def loose_limit(self) -> int:
        """A gear value below this ends a chunk of at least `average`."""
        return 1 << (64 - (self.average.bit_length() - 1) + self.normalization)
