# %% [markdown]
# # Where space goes
#
# Deduplication makes "how much does this folder take?" a hard question: what two folders share belongs to both. So
# there are three answers for each group of files: what it alone needs (**exclusive**), its part of what it shares
# (**shared**), and what would come back if it were deleted (**freed**). The rows add up to the size of the store.
# `lox analyze space` prints the same.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
from showcase import small_company

from lox.analysis import groups
from lox.analysis.space import space, total_stored

case = small_company(days=10)
view = case.open().view

# %% [markdown]
# ## By folder

# %%
folders = space(view, by="path", depth=case.depth + 2).to_pandas()
folders["name"] = [case.short(name) for name in folders["name"]]
files = folders[folders["kind"] == "files"].set_index("name")
files[["files", "logical", "unique", "stored_exclusive", "stored_shared", "stored_freed"]].astype("int64").head(8)

# %%
largest = files.head(8)[::-1]
largest[["stored_exclusive", "stored_shared"]].div(1e6).plot.barh(
    title="the folders that take most", stacked=True, color=["steelblue", "lightsteelblue"], figsize=(7, 3)
)
plt.xlabel("MB in the store")
plt.ylabel("")
plt.tight_layout()

# %%
top = files.iloc[0]
print(
    f"{files.index[0]} is the largest: {top['stored'] / 1e6:.1f} MB in the store for {top['logical'] / 1e6:.0f} MB "
    f"in all snapshots. Deleting it would give back {top['stored_freed'] / 1e6:.1f} MB."
)

# %% [markdown]
# ## The rows add up
# What is no content has rows of its own, so that nothing hides: manifests, index, headers, and what nobody needs.

# %%
overhead = folders[(folders["kind"] == "overhead") & (folders["stored"] > 0)][["name", "stored"]]
overhead

# %%
on_disk = sum(path.stat().st_size for path in Path(case.url).rglob("*") if path.is_file())
rows = total_stored(space(view, by="path", depth=case.depth + 2))
print(f"All rows: {rows:,} bytes. All objects on the disk: {on_disk:,} bytes. Difference: {rows - on_disk}.")
assert rows == on_disk

# %% [markdown]
# ## By type and by age

# %%
AGES = ["older than 5 years", *(name for _, name in reversed(groups.AGES))]
figure, axes = plt.subplots(1, 2, figsize=(9, 3))
for axis, way in zip(axes, ("ext", "age"), strict=True):
    found = space(view, by=way, now=view.snapshots[-1].time).to_pandas()
    found = found[found["kind"] == "files"].set_index("name")["stored"]
    found = found.head(6)[::-1] if way == "ext" else found.reindex([name for name in AGES if name in found.index])
    found.div(1e6).plot.barh(
        ax=axis, color="steelblue", title={"ext": "by extension", "age": "by time since the last change"}[way]
    )
    axis.set_xlabel("MB in the store")
    axis.set_ylabel("")
figure.tight_layout()

# %%
kinds = space(view, by="ext").to_pandas().query("kind == 'files' and logical > 0").set_index("name")
kinds["ratio"] = kinds["logical"] / kinds["stored"]
best, worst = kinds["ratio"].idxmax(), kinds["ratio"].idxmin()
print(
    f"{best} takes {kinds['ratio'][best]:.0f} times less than its files in all snapshots, "
    f"{worst} only {kinds['ratio'][worst]:.0f} times."
)

# %% [markdown]
# ## By host

# %%
hosts = space(view, by="host").to_pandas().query("kind == 'files'").set_index("name")
hosts[["logical", "unique", "stored_exclusive", "stored_shared", "stored", "stored_freed"]].astype("int64")

# %%
laptop = hosts.loc["laptop"]
print(
    f"The laptop has {laptop['unique'] / 1e6:.1f} MB of different content, but forgetting it frees "
    f"{laptop['stored_freed'] / 1e6:.1f} MB: {laptop['stored_shared'] / laptop['stored']:.0%} of it is shared."
)
