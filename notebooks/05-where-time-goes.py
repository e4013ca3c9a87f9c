# %% [markdown]
# # Where time goes in a run
#
# Every run leaves a record: what each stage did, second by second. Each second of a lane is **busy**, **starved**
# (no input) or **blocked** (no room for its output), so the three add up to wall time times lanes. This notebook makes
# one backup that compresses hard, of files that do not compress and files that do, and looks at its record.

# %%
import subprocess
import sys

import matplotlib.pyplot as plt
from showcase import Showcase

case = Showcase()
for number in range(15):
    case.write("box", f"noise/{number}.bin", case.noise(8_000_000))
    case.write("box", f"text/{number}.txt", case.text(3_000_000))
command = [sys.executable, "-m", "lox", "--repo", case.url, "-q", "--no-progress", "backup", str(case.folder / "box")]
done = subprocess.run([*command, "--compression", "zstd:9"], env=case.environment, check=True, capture_output=True)

# %% [markdown]
# ## The run in one row
# The sentence comes from the same record.

# %%
tables = case.open()
run = tables.runs().to_pylist()[-1]
print(
    f"{run['kind']}: {run['bytes_read'] / 1e6:.0f} MB in {run['wall']:.1f} s by {run['lanes']} lanes: {run['outcome']}"
)
print(run["bottleneck"])

# %% [markdown]
# ## Seconds by stage
# Stages of one strand share their lanes: while one works, the others of the lane are starved or blocked.

# %%
timeline = tables.timeline().to_pandas()
order = list(dict.fromkeys(timeline["stage"]))
sums = timeline.groupby("stage", observed=True)[["busy", "starved", "blocked"]].sum().loc[order]
whole = timeline.assign(all=timeline["seconds"] * timeline["lanes"]).groupby("stage", observed=True)["all"].sum()
assert (abs(sums.sum(axis=1) - whole.loc[order]) < 1e-6 * whole.loc[order] + 1e-6).all()
sums.round(2)

# %%
sums[::-1].plot.barh(stacked=True, color=["steelblue", "lightgrey", "salmon"], figsize=(7, 3))
plt.title("what the lanes of each stage did")
plt.xlabel("seconds of all lanes")
plt.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.ylabel("")
plt.tight_layout()

# %%
print(f"{sums['busy'].idxmax()} was busy the longest: {sums['busy'].max() / sums['busy'].sum():.0%} of all work.")

# %% [markdown]
# ## Over time
# How busy each stage was in each second: where the data changes, what limits changes with it.

# %%
load = timeline.assign(load=timeline["busy"] / (timeline["seconds"] * timeline["lanes"]))
grid = load.pivot_table(index="stage", columns="begin", values="load", observed=True).loc[order]
figure, axis = plt.subplots(figsize=(7, 3))
image = axis.imshow(grid, aspect="auto", cmap="Blues", vmin=0, vmax=1)
axis.set_yticks(range(len(grid)), grid.index)
axis.set_xticks(range(grid.shape[1]), [f"{begin:.0f}" for begin in grid.columns])
axis.set_title("how busy each stage was")
axis.set_xlabel("second of the run")
figure.colorbar(image, label="share of the time busy")
figure.tight_layout()

# %% [markdown]
# ## A roofline
# What each stage could do if nothing kept it waiting (its input by the seconds it was busy, times its lanes), and what
# the run did. A stage whose roof is near the line limits; on a strand the time of all its stages adds up.

# %%
bytes_in = timeline.groupby("stage", observed=True)["bytes_in"].sum().loc[order]
lanes = timeline.groupby("stage", observed=True)["lanes"].max().loc[order]
worked = sums["busy"] > 0.01
roof = (bytes_in / sums["busy"] * lanes)[worked & (bytes_in > 0)] / 1e6
rate = run["bytes_read"] / run["wall"] / 1e6
roof[::-1].plot.barh(logx=True, color="lightsteelblue", figsize=(7, 3))
plt.axvline(rate, color="firebrick", label=f"the run: {rate:.0f} MB/s")
plt.title("what each stage could do alone, and what the run did")
plt.xlabel("MB/s of input, all lanes (each step ten times more)")
plt.ylabel("")
plt.legend()
plt.tight_layout()

# %%
low = roof.idxmin()
print(f"The lowest roof is that of {low}: {roof[low]:.0f} MB/s alone; the run did {rate:.0f} MB/s with all stages.")
