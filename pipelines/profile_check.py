"""From the tree of a text to values at keys: what is unknown, of the wrong kind or out of range becomes a fault."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.profile_faults import Fault, Items, Pairs, Place, Scalar, Tree
from pipelines.profile_keys import ABOUT, KEYS, VERSION, VERSION_KEY, Key
from pipelines.profile_kinds import AUTO, Given, Wrong, closest


@dataclass(frozen=True, slots=True)
class Value:
    """What stands at a key: the value, None for `auto`; and where that was said."""

    value: Any
    place: Place


Values = dict[str, Value]


def check_profile(data: bytes, file: str) -> tuple[Values, list[Fault]]:
    """The values of a profile's text by path, as far as they are good, and what is wrong with it."""
    from pipelines.profile_source import read_tree  # YAML, which runs without a profile can do without

    root, faults = read_tree(data, file)
    if root is None:
        return {}, faults
    found: Values = {}
    for path, node in _leaves(root, "", faults):
        value = _checked(KEYS[path], node, faults)
        if value is not None:
            found[path] = value
    if not any(key.text == VERSION_KEY.path for key, _ in root.pairs):
        faults.append(Fault(root.place, "missing", "the profile has no version", f"begin with version: {VERSION}"))
    firsts = {fault.place: fault for fault in reversed(faults)}.values()  # one for each place
    return found, sorted(firsts, key=lambda fault: (fault.place.line, fault.place.column))


def check_setting(text: str) -> tuple[Values, list[Fault]]:
    """The same for ``KEY=VALUE`` from the command line; the value is written as in a file, quotes are not needed."""
    path, equals, given = text.partition("=")
    place = Place(f"--set {text}")
    path = path.strip()
    if not equals:
        return {}, [Fault(place, "syntax", "no value", "write for example --set stages.compress.level=9")]
    if path not in KEYS or "://" in given:
        from pipelines.profile_source import secret_in

        if why := secret_in(path, given):  # what was given is not repeated: it may be shown to others
            return {}, [Fault(Place(f"--set {path}=..."), "secret", *why)]
    if path not in KEYS:
        return {}, [Fault(place, "unknown-key", f"no such key: {path!r}", _closest_path(path))]
    if path in ABOUT:  # what was merged already cannot be merged otherwise by a value that comes later
        return {}, [Fault(place, "unknown-key", f"{path} can only stand in a file", "name the profile with --profile")]
    key = KEYS[path]
    node: Tree = Scalar(given.strip(), place)
    faults: list[Fault] = []
    if key.kind.shape != "scalar" and given.strip()[:1] in ("[", "{"):
        from pipelines.profile_source import read_tree

        root, faults = read_tree(f"value: {given}".encode(errors="replace"), "")
        faults = [Fault(place, each.code, each.reason, each.hint) for each in faults]
        if root is None or not root.pairs:
            return {}, faults
        node = root.pairs[0][1]
    value = _checked(key, node, faults, place)
    return ({path: value} if value is not None else {}), faults


def is_section(path: str) -> bool:
    """Whether keys stand below this path."""
    return any(known.startswith(path + ".") for known in KEYS)


def names_below(path: str) -> list[str]:
    """What may stand directly below a section; below "" the outermost keys."""
    depth = path.count(".") + 1 if path else 0
    prefix = path + "." if path else ""
    return list(dict.fromkeys(known.split(".")[depth] for known in KEYS if known.startswith(prefix)))


def _leaves(section: Pairs, path: str, faults: list[Fault]) -> Iterator[tuple[str, Tree]]:
    """Every key that exists, with what stands there."""
    known = names_below(path)
    for key, node in section.pairs:
        inner = f"{path}.{key.text}" if path else key.text
        if key.text not in known:
            where = f"in {path}" if path else "in a profile"
            reason = f"no such key {where}: {key.text[:60]!r}"
            faults.append(Fault(key.place, "unknown-key", reason, closest(key.text, known)))
        elif inner in KEYS:
            yield inner, node
        elif isinstance(node, Pairs):
            yield from _leaves(node, inner, faults)
        else:
            below = ", ".join(names_below(inner))
            faults.append(Fault(node.place, "type", f"{inner} is a section", f"below it stand {below}"))


def _checked(key: Key[Any], node: Tree, faults: list[Fault], place: Place | None = None) -> Value | None:
    place = place or node.place
    if isinstance(node, Scalar) and node.text == AUTO and key.automatic:
        return Value(None, place)
    given = _given(node)
    shapes = {"scalar": str, "list": str | list, "mapping": dict}
    if given is None or not isinstance(given, shapes[key.kind.shape]):
        article = "a value" if key.kind.shape == "scalar" else f"a {key.kind.shape}"
        faults.append(Fault(place, "type", f"{key.path} takes {article}", f"write {key.kind.bounds}"))
        return None
    try:
        return Value(key.kind.parse(given), place)
    except Wrong as wrong:
        hint = f"{wrong.hint}, or auto" if key.automatic and wrong.hint.startswith("write ") else wrong.hint
        faults.append(Fault(place, wrong.code, f"{key.path}: {wrong}", hint))
        return None


def _given(node: Tree) -> Given | None:
    """Text, a list of texts or a mapping of texts; None for what is nested deeper."""
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Items):
        texts = [item.text for item in node.nodes if isinstance(item, Scalar)]
        return texts if len(texts) == len(node.nodes) else None
    pairs = {key.text: item.text for key, item in node.pairs if isinstance(item, Scalar)}
    return pairs if len(pairs) == len(node.pairs) else None


def _closest_path(path: str) -> str:
    from difflib import get_close_matches

    last = path.rpartition(".")[2]
    same_end: Sequence[str] = [known for known in KEYS if known.rpartition(".")[2] == last]
    found = get_close_matches(path, KEYS, 1, 0.6) or same_end[:1]
    return f"did you mean {found[0]!r}?" if found else "lox help configuration lists all keys"
