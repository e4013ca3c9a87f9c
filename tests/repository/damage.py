"""Damage as disks, networks and attackers do it, for property tests of everything that parses stored bytes."""

from __future__ import annotations

from hypothesis import strategies as st


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with one thing wrong: a flipped bit, a cut, bytes put in or taken out, a run overwritten."""
    at = draw(st.integers(0, len(data) - 1))
    how = draw(st.sampled_from(["flip", "cut", "insert", "remove", "overwrite", "append"]))
    if how == "flip":
        result = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
    elif how == "cut":
        result = data[:at]
    elif how == "insert":
        result = data[:at] + draw(st.binary(min_size=1, max_size=40)) + data[at:]
    elif how == "remove":
        result = data[:at] + data[at + draw(st.integers(1, 40)) :]
    elif how == "overwrite":
        run = draw(st.binary(min_size=1, max_size=40))
        result = data[:at] + run + data[at + len(run) :]
    else:
        result = data + draw(st.binary(min_size=1, max_size=40))
    if result == data:
        result = data + b"\0"
    return result


def every_flip(data: bytes) -> list[bytes]:
    """`data` with each byte changed in turn."""
    return [data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :] for at in range(len(data))]
