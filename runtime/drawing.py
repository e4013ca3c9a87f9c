"""Plans as pictures: Graphviz's DOT, and SVG that needs no program to make it."""

from __future__ import annotations

from html import escape
from itertools import pairwise

from runtime.plan import Plan, Strand, fuse

_LETTER, _ROW, _GAP, _PAD = 8, 34, 24, 12  # pixels: width of a letter, height of a stage, between boxes, inside them
_SMALL, _LINE, _LABEL = 7, 14, 18  # pixels: a letter of a label, its line; letters that a line has room for at least
_STYLE = (
    "text{font:13px ui-monospace,monospace;text-anchor:middle;dominant-baseline:central;fill:#1f2328}"
    ".strand{fill:#f6f8fa;stroke:#8c959f;stroke-dasharray:5 3}.stage{fill:#ddf4ff;stroke:#0969da}"
    ".end{fill:#dafbe1;stroke:#1a7f37}.flow{stroke:#57606a;fill:none;marker-end:url(#tip)}"
    ".label{font-size:11px;fill:#57606a}"
)

_TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" fill="#57606a"/></marker></defs>'
)


def dot(plan: Plan) -> str:
    """A Graphviz digraph; strands are clusters."""
    lines = [f"digraph {_quoted(plan.name)} {{", "  rankdir=LR;", "  node [shape=box];"]
    lines.append(f"  source [label={_quoted(plan.source)}, shape=oval];")
    number = 0
    for position, strand in enumerate(fuse(plan)):
        lines.append(f"  subgraph cluster_{position} {{")
        lines.append(f"    label={_quoted(strand.text())};")
        for node in strand.nodes:
            lines.append(f"    n{number} [label={_quoted(node.name)}];")
            number += 1
        lines.append("  }")
    lines.append(f"  sink [label={_quoted(plan.sink)}, shape=oval];")
    chain = ["source", *(f"n{count}" for count in range(number)), "sink"]
    return "\n".join([*lines, f"  {' -> '.join(chain)};", "}"])


def svg(plan: Plan) -> str:
    """A picture of the chain from left to right; strands are dashed boxes around their stages."""
    picture = _Picture()
    x = picture.box(_PAD, plan.source, "end") + _GAP
    for strand in fuse(plan):
        x = picture.strand(x, strand) + _GAP
    width = picture.box(x, plan.sink, "end") + _PAD
    return picture.written(plan.name, width)


class _Picture:
    """Boxes in a row, drawn one after the other."""

    middle = _ROW + _PAD + 8

    def __init__(self) -> None:
        self._behind: list[str] = []
        self._before: list[str] = []
        self._boxes: list[tuple[int, int]] = []  # where each begins and ends
        self._lines = 1  # of the longest label

    def strand(self, x: int, strand: Strand) -> int:
        """A dashed box from `x` on, with its stages; where it ends."""
        content = sum(_width(node.name) + _GAP for node in strand.nodes) - _GAP + 2 * _PAD
        lines = _wrapped(strand.text(), max(content // _SMALL, _LABEL))
        width = max(content, max(map(len, lines)) * _SMALL + _PAD)
        at = x + (width - content) // 2 + _PAD
        for node in strand.nodes:
            at = self.box(at, node.name, "stage") + _GAP
        top, height = self.middle - _ROW // 2 - _PAD, _ROW + 2 * _PAD
        self._behind.append(f'<rect class="strand" x="{x}" y="{top}" width="{width}" height="{height}" rx="8"/>')
        for number, line in enumerate(lines):
            self._text(x + width // 2, top + height + 10 + _LINE * number, line, ' class="label"')
        self._lines = max(self._lines, len(lines))
        return x + width

    def box(self, x: int, text: str, kind: str) -> int:
        """A box with a word in it; where it ends."""
        width, corner = _width(text), 17 if kind == "end" else 4
        place = f'x="{x}" y="{self.middle - _ROW // 2}" width="{width}" height="{_ROW}"'
        self._before.append(f'<rect class="{kind}" {place} rx="{corner}"/>')
        self._text(x + width // 2, self.middle, text)
        self._boxes.append((x, x + width))
        return x + width

    def written(self, title: str, width: int) -> str:
        """The whole as text."""
        height = 2 * self.middle + 8 + _LINE * (self._lines - 1)
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img"><title>{escape(title)}</title><style>{_STYLE}</style>{_TIP}'
        )
        flows = [
            f'<path class="flow" d="M{end} {self.middle}H{begin - 1}"/>'
            for (_, end), (begin, _) in pairwise(self._boxes)
        ]
        return "\n".join([head, *self._behind, *self._before, *flows, "</svg>"])

    def _text(self, x: int, y: int, text: str, more: str = "") -> None:
        self._before.append(f'<text{more} x="{x}" y="{y}">{escape(text)}</text>')


def _width(text: str) -> int:
    """Of a box around a word."""
    return len(text) * _LETTER + 2 * _PAD


def _wrapped(label: str, letters: int) -> list[str]:
    """A label in lines of about so many letters, broken at commas."""
    lines: list[str] = []
    for part in label.split(", "):
        if lines and len(lines[-1]) + len(part) + 2 <= letters:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return lines


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
