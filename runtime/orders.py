"""Lanes, and what the scheduler orders to be done with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Lane(NamedTuple):
    """One life of one lane: `generation` counts its restarts, from 1."""

    strand: int
    number: int
    generation: int


@dataclass(frozen=True, slots=True)
class Open:
    """Make this lane: a worker with its copies of the strand's stages."""

    lane: Lane


@dataclass(frozen=True, slots=True)
class Push:
    """Hand an item to the lane: ticket `item` of the feed for strand 0, output number `item` for later ones."""

    lane: Lane
    item: int


@dataclass(frozen=True, slots=True)
class Flush:
    """Let the lane give out what it holds back, after the pushes it has already been given."""

    lane: Lane


@dataclass(frozen=True, slots=True)
class Lost:
    """Tell the sink that what this lane had under way is gone."""

    lane: Lane


Order = Open | Push | Flush | Lost
