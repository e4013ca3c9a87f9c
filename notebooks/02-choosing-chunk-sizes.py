# %% [markdown]
# # Choosing chunk sizes
#
# How long chunks are on average is settled when a repository is created. Short chunks find more that is stored already;
# each one costs 44 bytes in the index. What a size would give can be known before the first backup: `lox analyze
# what-if PATH` cuts a sample of the files with each of some sizes. This notebook does the same and plots it.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
from showcase import Showcase

case = Showcase(seed=2)

# %% [markdown]
# ## The files
# Four weekly dumps of a table, each with rows changed here and there; and ordinary files, some of them copies.

# %%
random = np.random.default_rng(5)
rows = case.table(60_000).split(b"\n")
for week in range(4):
    for row in random.integers(0, len(rows), 60):
        rows[row] = case.table(1)
    case.write("database", f"dump-{week}.csv", b"\n".join(rows), 7 * week)
for number in range(60):
    content = case.noise(40_000) if number % 3 else case.text(200_000)
    case.write("files", f"{number}.bin", content)
    if number % 5 == 0:
        case.write("files", f"copy of {number}.bin", content)
folders = [case.path(host, "") for host in ("database", "files")]
total = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
print(f"{total / 1e6:.0f} MB of files")

# %% [markdown]
# ## What other sizes would give
# Everything is read here. Of large trees a sample is drawn by lot, files of one length together, so that copies meet in
# the sample; and the intervals grow.

# %%
from lox.analysis.contents import draw_files, read_files
from lox.analysis.estimates import RUNS_BYTES, compression_of
from lox.analysis.lots import Lot
from lox.analysis.what_if import what_if
from model.chunking import KIB, MIB, ChunkerParams
from sources.files.scan import ScanOptions

averages = [8, 16, 32, 64, 128, 256, 512]
parameters = [ChunkerParams("gear", 4 * KIB, average * KIB, 4 * MIB) for average in averages]
parameters += [ChunkerParams("fixed", 4 * KIB, size * KIB, MIB) for size in (16, 64, 256)]
lot, runs = Lot(1 << 30), Lot(RUNS_BYTES)
files = draw_files(lot, [os.fsencode(folder) for folder in folders], ScanOptions(), runs=runs)
found = what_if(lot, files, read_files, parameters, compression=compression_of(runs, read_files), seed=2)
table = found.table.to_pandas()
table[
    ["kind", "average", "logical", "unique", "logical_per_unique", "chunks", "index_stored", "stored", "requests"]
].round(2)

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
for kind, color in (("gear", "steelblue"), ("fixed", "darkorange")):
    some = table[table["kind"] == kind]
    x = some["average"] / KIB
    for axis, name, scale in ((axes[0], "unique", 1e6), (axes[1], "chunks", 1)):
        bars = [(some[name] - some[f"{name}_low"]) / scale, (some[f"{name}_high"] - some[name]) / scale]
        axis.errorbar(x, some[name] / scale, bars, marker="o", capsize=3, color=color, label=kind)
axes[0].set_title("what is left after deduplication")
axes[1].set_title("what has to be indexed")
axes[0].set_ylabel("unique MB")
axes[1].set_ylabel("chunks")
axes[1].set_yscale("log")
for axis in axes:
    axis.set_xscale("log", base=2)
    axis.set_xticks(averages, map(str, averages))
    axis.set_xlabel("KiB on average")
axes[0].legend(title="cut by content / all equal")
figure.tight_layout()

# %% [markdown]
# ## What it is worth
# What a size saves in the store, against what its index and the lists of chunks take.

# %%
gear = table[table["kind"] == "gear"].copy()
gear["all_stored"] = gear["stored"] + gear["index_stored"] + gear["lists"]
best = gear.loc[gear["all_stored"].idxmin()]
default = gear[gear["average"] == 64 * KIB].iloc[0]
print(
    f"Least is stored with {best['average'] / KIB:.0f} KiB: {best['all_stored'] / 1e6:.1f} MB with index and lists, "
    f"{1 - best['all_stored'] / default['all_stored']:.1%} less than with the default of 64 KiB, "
    f"for {best['chunks'] / default['chunks']:.1f} times as many chunks."
)
fixed = table[(table["kind"] == "fixed") & (table["average"] == 64 * KIB)].iloc[0]
print(f"Chunks of equal length would store {fixed['unique'] / default['unique']:.2f} times as many unique bytes.")

# %% [markdown]
# ## Was it true?
# A repository with the default size, really backed up. Where it cuts depends on its secret, and so does a prediction on
# the one it is made with: ten of those are tried, and nearly all of their intervals should hold the truth.

# %%
from repository.query import stats

for host in ("database", "files"):
    case.back_up(host, 0)
view = case.open().view
truth = stats(view.repository, view.index, [view.manifest(one) for one in view.snapshots]).unique
only = [one for one in parameters if (one.kind, one.average) == ("gear", 64 * KIB)]
samples = [what_if(lot, files, read_files, only, seed=seed).table.to_pylist()[0] for seed in range(1, 11)]
inside = [one["unique_low"] <= truth <= one["unique_high"] for one in samples]
errors = [one["unique"] / truth - 1 for one in samples]
print(
    f"In truth {truth / 1e6:.2f} MB are unique. Ten predictions were {min(errors):+.1%} to {max(errors):+.1%} off; "
    f"{sum(inside)} of their 10 intervals hold the truth."
)
assert sum(inside) >= 7
