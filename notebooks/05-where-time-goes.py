# %% [markdown]
# # Where time goes in a run
#
# Every run leaves a record: what each stage did, second by second. Each second of a lane is **busy**, **starved**
# (no input) or **blocked** (no room for its output), so the sums are exactly wall time times lanes. This notebook makes
# one backup with stages apart, so that each has lanes of its own, and looks at its record.

# %%

from showcase import Showcase

case = Showcase()
for number in range(60):
    case.write("box", f"text/{number}.txt", case.text(2_000_000))
for number in range(20):
    case.write("box", f"noise/{number}.bin", case.noise(8_000_000))
