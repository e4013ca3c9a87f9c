"""The parts of hosts in one manifest: what was put in for a host comes out for it, and the whole is a manifest."""

from __future__ import annotations

import os

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.entries import order_key
from repository.host_parts import DEVICES, HostManifest, HostPart, join
from repository.manifest import ManifestWriter
from tests.repository.samples import table_of
from tests.repository.test_manifest import Chunks, found_paths

host_names = st.sampled_from(["a", "a-", "a.b", "b", "nas1", "nas10", "nas2", "ü"])
trees = st.sets(found_paths.filter(bool), max_size=12)


@settings(max_examples=40)
@given(st.dictionaries(host_names, trees, min_size=1, max_size=4), st.booleans())
def test_each_host_finds_its_own_rows(hosts: dict[str, set[bytes]], cut: bool) -> None:
    chunks, made = Chunks(), {}
    for number, (host, paths) in enumerate(hosts.items()):
        rows = table_of(dict.fromkeys(paths))
        manifest = HostManifest(chunks.store, host, number, table_of({b"": None}))
        for row in range(rows.num_rows):
            manifest.add(rows.slice(row, 1), np.zeros(int(cut), np.int32))
        made[host] = manifest.finish()
    writer = ManifestWriter(chunks.store)
    join(writer, made)
    reader = chunks.reader(writer.finish())  # which checks that parts and rows are in order
    everything = [path for table in reader for path in table["path"].to_pylist()]
    wanted = {os.fsencode(host) + b"/" + path for host, paths in hosts.items() for path in paths}
    assert everything == sorted(wanted | set(map(os.fsencode, hosts)), key=order_key)
    for number, (host, paths) in enumerate(hosts.items()):
        part = HostPart(reader, host)
        tables = list(part.subtree(b""))
        assert [path for table in tables for path in table["path"].to_pylist()] == sorted(paths, key=order_key)
        for table in tables:
            assert set(table["device"].to_pylist()) <= {number * DEVICES}
        for path in paths:
            found = part.find(path)
            assert found is not None
            assert found["path"].to_pylist() == [path]
        assert part.find(b"no such path") is None
        assert part.find(b"") is None
