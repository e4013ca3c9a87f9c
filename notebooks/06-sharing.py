# %% [markdown]
# # Sharing between machines
#
# Hosts that back up into one repository share what they have in common. How much is it, and who shares with whom?

# %%
import duckdb
import matplotlib.pyplot as plt
import numpy as np
from showcase import small_company

case = small_company(days=5)
tables = case.open()

# %% [markdown]
# ## Which host has which chunk
# The last snapshot of each host, its chunks, and where they lie. Chunks are counted once for each host.

# %%
snapshots = tables.snapshots()
newest = duckdb.sql(
    "select host, arg_max(snapshot, time) snapshot from snapshots group by host order by host"
).fetchall()
hosts = [host for host, _ in newest]
duckdb.sql("create table has (host varchar, chunk blob)")
for host, snapshot in newest:
    pairs = tables.entry_chunks(snapshot)
    duckdb.sql(f"insert into has select distinct '{host}', chunk from pairs")
chunks = tables.chunks().read_all()
duckdb.sql("create table size as select chunk, size from chunks where used")
duckdb.sql("""
    select host, count(*) chunks, sum(size)::bigint as "unique"
    from has join size using (chunk) group by host order by host
""").df()

# %% [markdown]
# ## Host by host
# The share of the row's content that the column's host has as well. The diagonal is always all of it.

# %%
common = duckdb.sql("""
    select a.host one, b.host other, sum(size) size
    from has a join has b using (chunk) join size using (chunk) group by all
""").fetchall()
sizes = {(one, other): float(size) for one, other, size in common}
share = np.array([[sizes.get((one, other), 0) / sizes[one, one] for other in hosts] for one in hosts])
figure, axis = plt.subplots(figsize=(4.5, 3.8))
image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
axis.set_xticks(range(len(hosts)), hosts, rotation=30)
axis.set_yticks(range(len(hosts)), hosts)
for row, column in np.ndindex(share.shape):
    axis.text(
        column,
        row,
        f"{share[row, column]:.0%}",
        ha="center",
        va="center",
        color="white" if share[row, column] > 0.6 else "black",
    )
axis.set_title("of the row's content, the column has")
figure.colorbar(image, label="share of unique bytes")
figure.tight_layout()

# %%
best = max(
    ((one, other) for one in hosts for other in hosts if one != other),
    key=lambda pair: sizes.get(pair, 0) / sizes[pair[0], pair[0]],
)
print(f"{sizes[best] / sizes[best[0], best[0]]:.0%} of {best[0]} lies on {best[1]} as well.")

# %% [markdown]
# ## What one repository saves
# Four repositories would store what is shared once for each host.

# %%
alone = sum(sizes[host, host] for host in hosts)
together = float(
    duckdb.sql("select sum(size) from (select distinct chunk from has) join size using (chunk)").fetchall()[0][0]
)
print(
    f"Apart, the hosts have {alone / 1e6:.1f} MB of unique content; together {together / 1e6:.1f} MB: "
    f"{1 - together / alone:.0%} less."
)

# %% [markdown]
# ## What is shared
# By the number of hosts that have it.

# %%
shared = duckdb.sql("""
    select hosts, count(*) chunks, sum(size)::bigint as "unique"
    from (select chunk, count(*) hosts from has group by chunk) join size using (chunk) group by hosts order by hosts
""").df()
shared
