# %% [markdown]
# # Churn and hot spots
#
# What comes and goes between backups decides how fast a repository grows. `lox analyze churn` compares each snapshot
# with the one before, and counts per folder what was added and removed.

# %%
import matplotlib.pyplot as plt
from showcase import Showcase

case = Showcase(seed=4)
DAYS = 8

# %% [markdown]
# ## A week
# A log grows, documents are edited now and then, a spool is emptied every day, and a browser fills its cache.

# %%
for number in range(40):
    case.write("office", f"home/ann/document-{number}.txt", case.text(30_000), -number)
case.write("office", "var/log/messages", case.text(200_000))
for day in range(DAYS):
    case.append("office", "var/log/messages", case.text(120_000), day)
    case.append("office", f"home/ann/document-{3 * day % 40}.txt", case.text(2_000), day)
    for number in range(6):
        case.write("office", f"srv/scans/incoming/{day}-{number}.tif", case.noise(90_000), day)
        gone = case.path("office", f"srv/scans/incoming/{day - 1}-{number}.tif")
        gone.unlink(missing_ok=True)
    case.write("office", f"home/ann/.cache/browser/block-{day % 3}", case.noise(400_000), day)
    case.back_up("office", day)

# %% [markdown]
# ## Hot spots
# Folders with at least 5 % of all churn, each without the hot spots below it: the rows add up. `logical` bytes are
# those of the files; `unique` ones no older snapshot had; `stored` is what they take in the store.

# %%
import pandas as pd

from lox.analysis.churn import churn, hot_spots

found = churn(case.open().view)
spots = hot_spots(found)
rows = [
    {"folder": case.short("/" + spot.folder.decode()) if spot.folder else "all others", **spot.counts} for spot in spots
]
table = pd.DataFrame(rows).set_index("folder")
table[
    ["comparisons", "files_added", "files_removed", "files_changed", "logical_added", "logical_removed", "stored_added"]
]

# %%
axis = (
    table[["logical_added", "logical_removed"]]
    .div(1e6)[::-1]
    .plot.barh(color=["steelblue", "lightsteelblue"], figsize=(7, 3))
)
axis.set_title("where content comes and goes")
axis.set_xlabel("logical MB in a week")
axis.set_ylabel("")
axis.legend(["added", "removed"])
plt.tight_layout()

# %%
hottest = table.iloc[0]
print(
    f"{table.index[0]} is the hottest: {hottest['logical_added'] / 1e6:.1f} MB came and "
    f"{hottest['logical_removed'] / 1e6:.1f} MB went in {found.comparisons} days; it cost "
    f"{hottest['stored_added'] / table['stored_added'].sum():.0%} of all that was stored."
)

# %% [markdown]
# ## What could be left out
# Folders that are named like caches, or whose content is gone the next day. It is a suggestion: who knows what is
# scanned?

# %%
saved = 0
for spot in spots:
    if spot.exclude is not None:
        saved += spot.counts["stored_added"]
        print(f"--exclude '{case.short(spot.exclude.decode())}'  {spot.reason}")
print(f"Without them the week would have stored {saved / table['stored_added'].sum():.0%} less.")
