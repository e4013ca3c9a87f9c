# %% [markdown]
# # A tour of a repository
#
# A repository answers questions like a database. `lox.open` gives its tables: snapshots, entries, chunks and packs.
# This notebook makes a small company with four hosts and looks at what ten days of backups left behind.
# The columns, with their units, are in [docs/tables.md](../docs/tables.md).

# %%
import duckdb
import matplotlib.pyplot as plt
import pyarrow.compute as pc
from showcase import small_company

case = small_company(days=10)
tables = case.open()

# %% [markdown]
# ## Snapshots
# One row for each backup. `logical` bytes are those of the files, `new` bytes the content that no backup had before,
# `stored` bytes what that took in the store, manifests included.

# %%
snapshots = tables.snapshots()
duckdb.sql("""
    select host, count(*) snapshots, max(files) files, sum(length_bytes)::bigint logical, sum(new_bytes)::bigint new,
           sum(stored_bytes)::bigint stored
    from snapshots group by host order by host
""").df()

# %%
total = duckdb.sql("select sum(length_bytes), sum(new_bytes), sum(stored_bytes) from snapshots").fetchall()[0]
print(
    f"{len(snapshots)} backups protect {total[0] / 1e6:.0f} MB. {total[1] / 1e6:.1f} MB of it are different, "
    f"and they take {total[2] / 1e6:.1f} MB: {total[0] / total[2]:.0f} times less."
)

# %% [markdown]
# ## Entries
# The entries of one snapshot come as a stream: DuckDB takes it as it is, and never holds more than a few thousand rows.

# %%
office = snapshots.filter(pc.field("host") == "office")["snapshot"][-1].as_py()
entries = tables.entries(office)
duckdb.sql("""
    select extension, count(*) files, sum(content)::bigint logical, sum(chunks)::bigint chunks
    from entries where kind = 'file' group by extension order by logical desc
""").df()

# %% [markdown]
# ## Chunks
# Files are cut where their content says so. Each chunk is stored once, whoever has it.

# %%
chunks = tables.chunks().read_all()
data = duckdb.sql("select size, stored from chunks where kind = 'data' and used").df()
plt.figure(figsize=(7, 3))
plt.hist(data["size"] / 1024, bins=40, color="steelblue")
plt.xlabel("KiB of a chunk")
plt.ylabel("chunks")
plt.title(f"{len(data)} chunks, {data['size'].mean() / 1024:.0f} KiB on average")
plt.tight_layout()

# %% [markdown]
# ## From a file to its packs
# `entry_chunks` joins the two. What is said about a file can be followed to the objects that hold it.

# %%
entries, pairs = tables.entries(office), tables.entry_chunks(office)
files = duckdb.sql("""
    select e.text path, count(*) chunks, sum(c.size)::bigint logical, sum(c.stored)::bigint stored,
           count(distinct c.pack) packs
    from entries e join pairs p using (entry) join chunks c using (chunk)
    where c.used and e.extension in ('txt', 'jpg') group by all order by logical desc limit 5
""").df()
files["path"] = [case.short("/" + path) for path in files["path"]]
files

# %% [markdown]
# ## Packs
# What lies in the store: sealed objects. `live` is what some snapshot needs.

# %%
packs = tables.packs()
duckdb.sql("""
    select kind, count(*) packs, sum(size)::bigint stored, sum(chunks)::bigint chunks,
           sum(live_stored)::bigint live_stored,
           sum(dead_stored)::bigint dead_stored
    from packs group by kind order by kind
""").df()

# %%
stored, dead = duckdb.sql("select sum(size), sum(dead_stored) from packs").fetchall()[0]
print(f"{dead / stored:.1%} of {stored / 1e6:.1f} MB in packs is needed by nobody.")
