"""Files that are shipped beside the program and are for other programs: units, rules, dashboards, an example."""

from __future__ import annotations

from pathlib import Path

# Folder of configs/ → what is in there. Profiles have commands of their own.
ABOUT = {
    "agent": "the configuration of lox-agent, as an example",
    "systemd": "units: put them into /etc/systemd/system",
    "launchd": "the agent as a service of macOS",
    "windows": "the agent as a service of Windows",
    "prometheus": "rules and alerts, and how to scrape",
    "grafana": "dashboards: import them",
}


def shipped_files() -> dict[str, Path]:
    """Name → where it lies on this host, in the order of `ABOUT`; a name is its folder and its own name."""
    import configs

    root = Path(configs.__file__).parent
    return {
        f"{folder}/{path.name}": path
        for folder in ABOUT
        for path in sorted((root / folder).glob("*"))
        if path.is_file() and not path.stem.endswith("_test")
    }
