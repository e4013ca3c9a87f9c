"""Listings travel between processes with their own rows, not with those they were cut from."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa

from model.batches import Listing
from model.entries import STAT, Fresh, Paths


def test_a_listing_takes_only_its_own_rows_along() -> None:
    parent = pa.table(
        {
            "path": pa.array([b"folder/file%d" % number for number in range(50_000)], pa.binary()),
            "chunks": pa.array([[bytes(32)] * (number % 3) for number in range(50_000)], pa.list_(pa.binary(32))),
        }
    )
    nothing = np.zeros(0, dtype=np.int32)
    fresh = Fresh(Paths.of([]), np.zeros(0, STAT), np.zeros(0, np.uint32), np.zeros(0, np.bool_))
    listing = Listing(7, fresh, nothing, parent.slice(40_000, 10), np.arange(10, dtype=np.int32))
    sent = pickle.dumps(listing, protocol=5)
    assert len(sent) < 10_000
    got = pickle.loads(sent)
    assert got.carried.equals(parent.slice(40_000, 10)) and got.seq == 7 and got.rows == 10
    assert pickle.loads(pickle.dumps(Listing(8, fresh, nothing), protocol=5)).carried is None
