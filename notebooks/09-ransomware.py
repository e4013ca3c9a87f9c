# %% [markdown]
# # Signs of ransomware
#
# Whoever encrypts files leaves traces in every backup after: far more files change than on other days, what is new
# does not compress any more, and hardly anything deduplicates. None of it needs to look into files: manifests and
# index tell.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from showcase import Showcase

case = Showcase(seed=9)
DAYS, ATTACK = 12, 9

# %% [markdown]
# ## Twelve days
# People write; on one day a colleague unpacks a folder of photographs, which is no attack. On day 9 two of three
# files are encrypted and renamed.

# %%
random = np.random.default_rng(9)
for number in range(150):
    case.write("office", f"home/document-{number}.txt", case.text(20_000), -number)
for day in range(DAYS):
    for number in random.integers(0, 150, 6):
        if case.path("office", f"home/document-{number}.txt").exists():
            case.append("office", f"home/document-{number}.txt", case.text(3_000), day)
    if day == 5:
        for number in range(12):
            case.write("office", f"home/photo-{number}.jpg", case.noise(100_000), day)
    if day == ATTACK:
        for number in range(150):
            path = case.path("office", f"home/document-{number}.txt")
            if number % 3:
                case.write("office", f"home/document-{number}.txt.locked", case.noise(path.stat().st_size), day)
                path.unlink()
    case.back_up("office", day)

# %% [markdown]
# ## Three signals of each backup
# * **changed**: files that are new, gone or have other content, of all files
# * **noise**: stored bytes for each unique byte that is new; what is encrypted does not compress
# * **fresh**: unique new bytes for each logical byte of the snapshot; where it rises, deduplication has collapsed

# %%
from lox.analysis.forecast import growth
from repository.diff import ChangeKind, diff

view = case.open().view
snapshots = view.snapshots
files = [one.stats["files"] for one in snapshots]
content = {ChangeKind.ADDED, ChangeKind.REMOVED, ChangeKind.CONTENT}
rows = []
grown = growth(view).to_pandas()
for day in range(1, DAYS):
    before, after = (view.manifest(snapshots[number]) for number in (day - 1, day))
    changes = sum(change.kind in content for change in diff(before, after))
    new = grown.iloc[day]
    rows.append(
        {
            "day": day,
            "changed": changes / (files[day - 1] + files[day]),
            "noise": new["stored_added"] / new["unique_added"],
            "fresh": new["unique_added"] / snapshots[day].stats["bytes_total"],
        }
    )
signals = pd.DataFrame(rows).set_index("day")
signals.round(3)

# %% [markdown]
# ## What is out of the ordinary
# Each signal against the days before it, in units of their usual spread (the median of the distances from the median,
# and at least 0.03). An alarm needs all three: photographs are noise and fresh, but few files change.


# %%
def strangeness(values: pd.Series) -> pd.Series:
    """How many usual spreads each day lies above the median of the days before it."""
    found = []
    for number in range(len(values)):
        past = values.iloc[: max(number, 1)]
        spread = max(1.4826 * (past - past.median()).abs().median(), 0.03)
        found.append((values.iloc[number] - past.median()) / spread)
    return pd.Series(found, values.index)


strange = signals.apply(strangeness)
alarm = strange.index[(strange > 4).all(axis=1)]

# %%
UNITS = {
    "changed": "changed\nof all files",
    "noise": "stored\nper unique byte",
    "fresh": "unique added\nper byte there",
}
figure, axes = plt.subplots(3, 1, figsize=(7, 4.5), sharex=True)
for axis, name in zip(axes, signals.columns, strict=True):
    axis.bar(
        signals.index, signals[name], color=["firebrick" if day in alarm else "steelblue" for day in signals.index]
    )
    axis.set_ylabel(UNITS[name])
axes[0].set_title("three signals of each day; red: all three are far out of the ordinary")
axes[-1].set_xlabel("day")
figure.tight_layout()

# %%
print(f"Alarm on day {', '.join(map(str, alarm))}; the attack was on day {ATTACK}.")
print(
    f"Day 5, with the photographs: changed {strange['changed'][5]:.1f}, noise {strange['noise'][5]:.1f} spreads: "
    "no alarm."
)
assert list(alarm) == [ATTACK]

# %% [markdown]
# ## A look into the files
# To be sure, some of the new files are read: encrypted bytes have close to 8 bits of entropy, text about 4.

# %%
from lox.analysis.why import explain


def entropy(name: bytes, snapshot) -> float:
    """Bits for each byte of a file of a snapshot."""
    reader = view.manifest(snapshot)
    lists = reader.content(reader.find(name))
    data = np.frombuffer(b"".join(view.fetcher.fetch([one.tobytes() for one in lists.ids])), np.uint8)
    share = np.bincount(data, minlength=256) / len(data)
    return float(-(share[share > 0] * np.log2(share[share > 0])).sum())


home = os.fsencode(case.path("office", "home"))[1:]
before = entropy(home + b"/document-1.txt", snapshots[ATTACK - 1])
after = entropy(home + b"/document-1.txt.locked", snapshots[ATTACK])
print(f"document-1.txt had {before:.2f} bits for each byte, document-1.txt.locked has {after:.2f}.")
verdict = explain(view, snapshots[ATTACK], home + b"/document-1.txt.locked").verdict
print(f"lox why says of it: {verdict.state}; {verdict.reasons[0]}. Day {ATTACK - 1} is to be restored.")
