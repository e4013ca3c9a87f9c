"""``lox pipeline tune``."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import click

from lox.engine import Asked, applied, engine_options, limit_options
from lox.escape import safe
from lox.output import Output, output_of
from lox.settings import command as command_of
from lox.settings import option
from lox.signals import stopping
from lox.types import BytesType, SecondsType, UpToType
from lox.units import format_rate, format_seconds, format_size, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.profile import Profile
    from pipelines.tune import Knob, Step, Tuned
    from pipelines.tuning import Workbench

TIME_LEAST = 10.0  # seconds


@command_of("tune")
@click.argument("name", metavar="[PROFILE]", required=False)
@option("--source", metavar="PATH", type=BytesType(), required=True, help="Files like those that are to be backed up.")
@option("--time", "seconds", type=SecondsType(TIME_LEAST), metavar="TIME", default="120s", show_default=True,
        help="How long to measure, for example 90s, 10m.")  # fmt: skip
@option("--work", metavar="DIR|URL", help="Where trials store their packs. [default: a temporary folder]")
@option("--allow-larger", type=UpToType(), metavar="PERCENT", default="2%", show_default=True,
        help="How much more may be stored for the sake of speed.")  # fmt: skip
@option("--warm", is_flag=True, help="Leave files in memory that are there. [default: read them from where they lie]")
@option("--write", is_flag=True, help="Keep what was found, as a profile of yours.")
@option("--name", "new_name", help="What that is called. [default: the name of the profile with -tuned]")
@engine_options
@limit_options
@click.pass_context
def command(
    ctx: click.Context, /, asked_engine: Asked, name: str | None, source: bytes, seconds: float, work: str | None,
    allow_larger: float, warm: bool, write: bool, new_name: str | None,
) -> None:  # fmt: skip
    """Find out by real backups which settings of a profile are fastest for these files on this host.

    Backs up a sample of the source again and again into repositories that are deleted at once. One setting is changed
    at a time, by one step; what is to be compared is measured in turns, in pairs. What was found is measured against
    the profile once more in the end, and that is the gain that is told. The source is only read. For --work name a
    place on the disk, or in the store, that backups go to.
    """
    from lox.measuring import place_of
    from pipelines.profile_write import new_path
    from pipelines.rates import usable_cores
    from pipelines.trials import trial_ground
    from pipelines.tune import Climber
    from pipelines.tuning import Workbench, knobs_of

    output, start = output_of(ctx), asked_engine.called(name).resolved()
    place = place_of(source)
    target = new_path(new_name or f"{start.name}-tuned") if write else None
    _, point = knobs_of(start, usable_cores())
    ctx.with_resource(applied(start))
    stop, begin = threading.Event(), time.monotonic()
    with stopping(stop, quiet=output.json), trial_ground(work, stop) as ground:
        bench = Workbench(ground, place, start, cold=not warm)
        bench.prepare(point, seconds)
        knobs, point = knobs_of(start, usable_cores(), bench.batches)
        _show_sample(output, bench, knobs)
        climber = Climber(knobs, bench.measure, time.monotonic, allow_larger, lambda step: _show_step(output, step))
        tuned = climber.climb(point, seconds - (time.monotonic() - begin))
    _show_result(output, start, tuned, time.monotonic() - begin)
    if target is not None and tuned.worth_it:
        _write(output, target, start, tuned)


def _write(output: Output, path: str, start: Profile, tuned: Tuned) -> None:
    """A profile of the user's own: it extends the one it began with, and sets what options gave and what changed."""
    from pipelines.profile_write import profile_text, write_new

    given = {key: value.value for key, value in start.values.items() if value.place.file.startswith("--")}
    changes = {**given, **{key: after for key, (_, after) in tuned.changes.items()}}
    extends = "default"
    if start.files:
        file = start.files[0]
        extends = os.path.abspath(file.path) if file.place == "file" else file.name
    told = f"Tuned on {socket.gethostname()}, {time.strftime('%Y-%m-%d')}: {_gain_text(tuned)}"
    write_new(path, profile_text(extends, changes, told))
    output.event("written", path=path)
    output.line(f"written to {safe(path)}")


def _show_sample(output: Output, bench: Workbench, knobs: Sequence[Knob]) -> None:
    sample = bench.sample
    output.event("sample", files=sample.files, bytes=sample.size, whole=sample.whole, knobs=len(knobs))
    what = "all of" if sample.whole else "a sample of"
    output.note(
        f"measuring with {what} {safe(sample.origin)}: {plural(sample.files, 'file')}, {format_size(sample.size)}"
    )
    if len(knobs[0].values) == 1:  # lanes of all stages
        output.note("note: too few files to tell what other numbers of lanes are worth; they are not tried")


def _show_step(output: Output, step: Step) -> None:
    spread = step.time
    output.event(
        "step",
        key=step.key,
        before=_written(step.key, step.before),
        after=_written(step.key, step.after),
        verdict=step.verdict,
        time=spread and round(spread.median, 4),
        low=spread and round(spread.low, 4),
        high=spread and round(spread.high, 4),
        pairs=spread.pairs if spread else 0,
        stored=round(step.stored, 4),
        why=step.why,
    )
    what = f"{step.key}: {_written(step.key, step.before)} → {_written(step.key, step.after)}"
    if spread is None:
        output.line(f"  {what:<48} not possible: {safe(step.why)}")
        return
    pairs = plural(spread.pairs, "pair")
    ranged = f"{spread.low:.2f} to {spread.high:.2f}, {pairs}" if spread.pairs > 1 else f"{pairs}, given up"
    stored = "" if 0.995 < step.stored < 1.005 else f", stored × {step.stored:.2f}"
    taken = "taken: " if step.verdict in ("faster", "smaller") else ""
    output.line(f"  {what:<48} {taken}time × {spread.median:.2f} ({ranged}){stored}")


def _show_result(output: Output, start: Profile, tuned: Tuned, seconds: float) -> None:
    gain = tuned.gain
    output.event(
        "tuned",
        profile=start.name,
        changes={
            key: {"before": _written(key, before), "after": _written(key, after)}
            for key, (before, after) in tuned.changes.items()
        },
        gain=gain and round(1 / gain.median, 4),
        gain_low=gain and round(1 / gain.high, 4),
        gain_high=gain and round(1 / gain.low, 4),
        pairs=gain.pairs if gain else 0,
        stored=round(tuned.stored, 4),
        beyond_noise=tuned.worth_it,
        bytes_per_second=[round(1 / pace) for pace in tuned.pace or ()],
        trials=tuned.trials,
        untried=tuned.untried,
        seconds=round(seconds, 1),
    )
    output.line()
    output.line(f"{plural(tuned.trials, 'trial')} in {format_seconds(seconds)}{_untried(tuned)}")
    if not tuned.worth_it:
        output.line(f"no gain beyond noise: {_no_gain_text(tuned)}")
        return
    output.lines([f"--- {start.name}", "+++ tuned"])
    for key, (before, after) in tuned.changes.items():
        output.lines([f"-{key}: {_written(key, before)}", f"+{key}: {_written(key, after)}"])
    output.line(_gain_text(tuned))


def _untried(tuned: Tuned) -> str:
    return f"; {plural(tuned.untried, 'step')} not tried for lack of time" if tuned.untried else ""


def _no_gain_text(tuned: Tuned) -> str:
    if tuned.gain is None:
        return "no step made it faster"
    gain = tuned.gain
    if not gain.sure:
        return f"what looked faster had time for only {plural(gain.pairs, 'more pair')}; give it more --time"
    return f"what looked faster was not, when measured again (time × {gain.low:.2f} to {gain.high:.2f})"


def _gain_text(tuned: Tuned) -> str:
    """What the last race showed."""
    gain, pace = tuned.gain, tuned.pace
    assert gain is not None and pace is not None, "only what was measured is told"
    stored = "the same is stored" if 0.995 < tuned.stored < 1.005 else f"{tuned.stored:.1%} of the bytes are stored"
    pairs = plural(gain.pairs, "pair")
    return (
        f"{1 / gain.median:.2f} times as fast ({1 / gain.high:.2f} to {1 / gain.low:.2f}, {pairs}): "
        f"{format_rate(1 / pace[0])} → {format_rate(1 / pace[1])}; {stored}"
    )


def _written(key: str, value: object) -> str:
    from pipelines.profile import written
    from pipelines.profile_keys import KEYS

    return written(KEYS[key], value)
