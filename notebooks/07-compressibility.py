# %% [markdown]
# # Compressibility by type and level
#
# How much smaller files get depends on what they are, and on how much time one takes. `lox analyze compressibility
# [PATH]` compresses a sample of each type with each codec and level, as a backup does it: many files together, 4 MiB
# at a time.

# %%
import os

import matplotlib.pyplot as plt
from showcase import Showcase

case = Showcase(seed=7)

# %% [markdown]
# ## Files of five types

# %%
for number in range(30):
    case.write("office", f"{number}.txt", case.text(60_000))
    case.write("office", f"{number}.csv", case.table(2_500))
    case.write("office", f"{number}.jpg", case.noise(80_000))
    case.write(
        "office",
        f"{number}.log",
        b"".join(b"2026-01-05 12:%02d:%02d GET /page-%d 200\n" % (n // 60 % 60, n % 60, n % 17) for n in range(2_000)),
    )
    case.write("office", f"{number}.bin", case.noise(20_000) + bytes(20_000) + case.text(20_000))

# %%
from lox.analysis.compressibility import KindLots, compressibility
from lox.analysis.contents import draw_files, read_files
from sources.files.scan import ScanOptions

codecs = [("lz4", 0), ("zstd", 1), ("zstd", 2), ("zstd", 3), ("zstd", 6), ("zstd", 9), ("gzip", 6)]
lots = KindLots(2 << 20, lambda thing: thing.path)
draw_files(lots, [os.fsencode(case.path("office", ""))], ScanOptions())
table = compressibility(lots, read_files, codecs).to_pandas()
table["how"] = table["codec"] + ":" + table["level"].astype(str)
ratios = table.pivot(index="group", columns="how", values="compressed_per_logical")[
    [f"{codec}:{level}" for codec, level in codecs]
]
ratios.round(3)

# %% [markdown]
# ## What is left, by type

# %%
types = ratios.drop("(all)").sort_values("zstd:2")
axis = types[["lz4:0", "zstd:2", "zstd:9"]].plot.bar(color=["lightsteelblue", "steelblue", "darkblue"], figsize=(7, 3))
axis.set_title("what is left of each type (1: nothing gained)")
axis.set_ylabel("compressed / logical")
axis.set_xlabel("")
plt.xticks(rotation=0)
plt.tight_layout()

# %% [markdown]
# ## What it costs
# All types together, weighted by their bytes: what is left against the CPU seconds for 10^9 bytes.

# %%
both = table[table["group"] == "(all)"]
plt.figure(figsize=(7, 3))
plt.scatter(both["cpu_seconds_per_gb"], both["compressed_per_logical"], color="steelblue")
for number, (_, row) in enumerate(both.iterrows()):
    plt.annotate(
        row["how"],
        (row["cpu_seconds_per_gb"], row["compressed_per_logical"]),
        xytext=(4, 6 if number % 2 else -12),  # neighbours do not lie on each other
        textcoords="offset points",
    )
plt.title("what a level gains, and what it costs")
plt.xlabel("CPU seconds for 10^9 bytes")
plt.ylabel("compressed / logical")
plt.tight_layout()

# %%
worst, best = types["zstd:2"].idxmax(), types["zstd:2"].idxmin()
at = both.set_index("how")
gain = 1 - at["compressed_per_logical"]["zstd:9"] / at["compressed_per_logical"]["zstd:2"]
price = at["cpu_seconds_per_gb"]["zstd:9"] / at["cpu_seconds_per_gb"]["zstd:2"]
print(
    f"{best} files keep {types['zstd:2'][best]:.1%} of their bytes, {worst} files {types['zstd:2'][worst]:.0%}. "
    f"Level 9 stores {gain:.1%} less than the default, and takes more than {int(price)} times the CPU."
)
