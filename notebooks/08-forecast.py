# %% [markdown]
# # Growth, and when the store is full
#
# Each snapshot adds what no other had before. From a month of them future days can be drawn, and what a policy would
# leave can be worked out. `lox analyze forecast --capacity SIZE --policy daily=7,weekly=4` prints the same.

# %%
import matplotlib.pyplot as plt
import numpy as np
from showcase import DAY, START, Showcase

case = Showcase(seed=8)
DAYS = 35

# %% [markdown]
# ## Five weeks of backups
# On working days much is written, on weekends little; and old files are replaced all the time.

# %%
random = np.random.default_rng(8)
for number in range(60):
    case.write("office", f"{number}.bin", case.noise(40_000))
for day in range(DAYS):
    busy = 5 if day % 7 < 5 else 1
    for number in random.integers(0, 60, busy):
        case.write("office", f"{number}.bin", case.noise(int(20_000 + random.integers(0, 40_000))), day)
    case.append("office", "0.bin", case.text(20_000 * busy), day)
    case.back_up("office", day)

# %% [markdown]
# ## Growth

# %%
from lox.analysis.forecast import Retention, forecast, growth

view = case.open().view
grown = growth(view)
table = grown.to_pandas()
daily = table[~table["baseline"]]
print(
    f"{len(table)} snapshots need {table['stored_total'].iloc[-1] / 1e6:.1f} MB of the store; a working day adds "
    f"{daily['stored_added'].quantile(0.75) / 1e3:.0f} kB, "
    f"a day of a weekend {daily['stored_added'].min() / 1e3:.0f} kB."
)

# %% [markdown]
# ## The next half year
# Weeks are drawn from those there were, a thousand times. Nine of ten futures lie in the band.

# %%
now, stored, capacity = START + (DAYS - 1) * DAY, sum(view.objects.values()), 30_000_000
found = forecast(grown, stored, now, days=180, capacity=capacity)
ahead = found.days.to_pandas()
plt.figure(figsize=(7, 3.2))
plt.plot(np.arange(DAYS) - DAYS + 1, table["stored_total"] / 1e6, color="black", label="what was")
plt.plot(ahead["day"], ahead["stored_median"] / 1e6, color="steelblue", label="what will be")
plt.fill_between(ahead["day"], ahead["stored_low"] / 1e6, ahead["stored_high"] / 1e6, color="lightsteelblue")
plt.axhline(capacity / 1e6, color="firebrick", linestyle="--", label="capacity")
plt.title("growth, and nine of ten futures")
plt.xlabel("days from now")
plt.ylabel("stored MB")
plt.legend()
plt.tight_layout()

# %%
print(
    f"{capacity / 1e6:.0f} MB are reached in {found.full_median} days; in nine of ten futures after "
    f"{found.full_early} to {found.full_late}."
)

# %% [markdown]
# ## What a policy would change
# The snapshots that `lox forget` would leave after half a year of daily backups, and the stored bytes they need:
# those of the newest, and for each older one what has gone until the next. How much goes in how many days is known
# from the past.

# %%
import pandas as pd

from repository.retention import Policy, candidates_of

retention = Retention(view)
candidates = candidates_of(view.repository, view.snapshots, view.annotations, now + DAY)
policies = {
    "last=1": Policy(last=1),
    "daily=7": Policy(daily=7),
    "daily=7, weekly=4": Policy(daily=7, weekly=4),
    "daily=30": Policy(daily=30),
    "daily=30, monthly=6": Policy(daily=30, monthly=6),
}
kept = {name: retention.after(candidates, policy, now + DAY, 180, DAY) for name, policy in policies.items()}
rows = [
    {
        "policy": name,
        "snapshots": one.snapshots,
        "low": one.stored_low,
        "median": one.stored_median,
        "high": one.stored_high,
    }
    for name, one in kept.items()
]
left = pd.DataFrame(rows).set_index("policy")
left

# %%
bars = [(left["median"] - left["low"]) / 1e6, (left["high"] - left["median"]) / 1e6]
plt.figure(figsize=(7, 3))
plt.barh(left.index[::-1], left["median"][::-1] / 1e6, xerr=[bar[::-1] for bar in bars], color="steelblue", capsize=3)
plt.axvline(ahead["stored_median"].iloc[-1] / 1e6, color="black", linestyle=":", label="nothing forgotten")
plt.title("what each policy leaves")
plt.xlabel("stored MB after half a year")
plt.legend()
plt.tight_layout()

# %%
share = left["median"]["daily=7, weekly=4"] / ahead["stored_median"].iloc[-1]
print(f"A policy of 7 days and 4 weeks needs {share:.0%} of what keeping everything would.")
