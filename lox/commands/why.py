"""``lox why``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lox.analyzing import open_view
from lox.commands.restore import snapshot_path
from lox.contents import ID_SHOWN
from lox.escape import path_fields, safe, shown, shown_path
from lox.output import Output, output_of
from lox.settings import command as command_of
from lox.types import BytesType
from lox.units import format_share, format_size, plural
from model.exits import ExitCode

if TYPE_CHECKING:
    from lox.analysis.why import Cost, Explanation, Verdict

PACKS_SHOWN = 4


@command_of("why")
@click.argument("snapshot", metavar="SNAP")
@click.argument("path", type=BytesType())
@click.pass_context
def command(ctx: click.Context, /, snapshot: str, path: bytes) -> ExitCode:
    """Explain why a file or folder is in a snapshot as it is.

    Whether it was new, changed (and in what) or read for another reason; which of its content was known already, and
    from where; and what a restore of it alone fetches. What the snapshots that are left cannot tell is said to be
    unknown.
    """
    wanted = snapshot_path(path)
    view, damage = open_view(ctx, ["lox.analysis.why"])
    from lox.analysis.why import explain

    output = output_of(ctx)
    found = explain(view, view.snapshot(snapshot), wanted)
    output.event("why", **_fields(found))
    output.lines(_lines(found, output))
    return damage.code


def _fields(found: Explanation) -> dict[str, object]:
    verdict, cost = found.verdict, found.cost
    return {
        "snapshot": found.snapshot.id,
        **path_fields(b"/" + found.path),
        "kind": found.kind.name.lower().replace("_", "-"),
        "parent": found.parent,
        "mode": found.snapshot.mode,
        "state": verdict.state,
        "read": verdict.read,
        "changed": verdict.changed,
        "metadata_changed": verdict.metadata,
        "content_changed": verdict.content,
        "reasons": [safe(reason) for reason in verdict.reasons],
        "entries_below": found.states,
        "logical_bytes": found.logical,
        "repeated_bytes": found.repeated,
        "unique_bytes": cost.content,
        "origins": [
            {
                "origin": origin.what,
                "unique_bytes": origin.bytes,
                "chunks": origin.chunks,
                "holders": [
                    {"snapshot": one.snapshot, "host": one.host, **path_fields(b"/" + one.path), "bytes": one.bytes}
                    for one in origin.holders
                ],
            }
            for origin in found.origins
        ],
        "restore": {
            "stored_bytes_fetched": cost.fetched,
            "segments": cost.segments,
            "ranges": cost.ranges,
            "packs": cost.packs,
            "missing_chunks": cost.missing,
        },
        "links": [path_fields(b"/" + link) for link in found.links],
        "problem": None if found.problem is None else found.problem.decode("utf-8", "replace"),
    }


def _lines(found: Explanation, output: Output) -> list[str]:
    verdict = found.verdict
    lines = [f"{shown_path(found.path)} in snapshot {found.snapshot.id[:ID_SHOWN]} of {safe(found.snapshot.host)}"]
    against = "" if found.parent is None else f", compared with snapshot {found.parent[:ID_SHOWN]}"
    lines.append(f"state     {_state(verdict)}{against}")
    lines += [f"          {safe(reason)}" for reason in verdict.reasons]
    if found.states:
        counts = ", ".join(f"{count:,} {name}" for name, count in found.states.items())
        lines.append(f"files     {counts}")
    if found.problem is not None:
        lines.append(f"problem   {shown(found.problem)}")
    if found.links:
        lines.append("same file " + ", ".join(map(shown_path, found.links)))
    if found.logical:
        lines += _content(found)
        lines += _restore(found.cost, found.logical, output.verbose > 0)
    return lines


def _state(verdict: Verdict) -> str:
    parts = [verdict.state]
    if verdict.changed:
        parts[0] += ": " + ", ".join(verdict.changed)
    if verdict.content is not None:
        parts.append("content differs" if verdict.content else "same content")
    if verdict.metadata:
        parts.append("other " + ", ".join(verdict.metadata))
    if verdict.read is not None:
        parts.append("read" if verdict.read else "not read")
    return "; ".join(parts)


def _content(found: Explanation) -> list[str]:
    from lox.analysis.origins import ORIGINS, SAME

    unique = found.cost.content
    text = f"content   {format_size(found.logical)} logical, {format_size(unique)} unique"
    if found.repeated:
        text += f" ({format_size(found.repeated)} repeat within it)"
    lines = [text]
    for origin in found.origins:
        lines.append(f"  {format_share(origin.bytes, unique):>6}  {format_size(origin.bytes):>8}  {origin.what}")
        # The same path before is no news: only others are named.
        for one in (one for one in origin.holders if one.snapshot != found.parent or origin.what != ORIGINS[SAME]):
            place = f"{one.snapshot[:ID_SHOWN]} {safe(one.host)}"
            lines.append(f"          {format_size(one.bytes):>8}  in {place} {shown_path(one.path)}")
    return lines


def _restore(cost: Cost, logical: int, verbose: bool) -> list[str]:
    ratio = cost.fetched / logical
    lines = [
        f"restore   fetches {format_size(cost.fetched)} stored ({ratio:.2f} times its logical bytes) in "
        f"{plural(cost.ranges, 'range')}, {plural(cost.segments, 'segment')} of {plural(len(cost.packs), 'pack')}"
    ]
    named = cost.packs if verbose else cost.packs[:PACKS_SHOWN]
    rest = len(cost.packs) - len(named)
    lines.append("packs     " + ", ".join(name[:16] for name in named) + (f" and {rest:,} more (-v)" if rest else ""))
    if cost.missing:
        lines.append(f"missing   {plural(cost.missing, 'chunk')} of it in no index: lox check tells more")
    return lines
