"""File systems that hold no files of anybody: what the kernel shows of itself."""

from __future__ import annotations

import os

PSEUDO = frozenset(
    b"autofs binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs fusectl hugetlbfs mqueue nfsd "
    b"nsfs proc pstore rpc_pipefs securityfs selinuxfs smackfs sysfs tracefs".split()
)


def pseudo_devices(table: str = "/proc/self/mountinfo") -> frozenset[int]:
    """``st_dev`` of every mounted pseudo file system; empty where there is no such table."""
    try:
        with open(table, "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return frozenset()
    found = set()
    for line in lines:
        mount, _, source = line.partition(b" - ")
        kind = source.split(b" ", 1)[0]
        if kind in PSEUDO:
            major, _, minor = mount.split(b" ")[2].partition(b":")
            found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)
