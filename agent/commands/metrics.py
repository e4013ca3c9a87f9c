"""``lox-agent metrics``."""

from __future__ import annotations

import click

from agent.app import Settings


@click.command("metrics")
@click.pass_obj
def command(settings: Settings) -> None:
    """Print the metrics of this host.

    They are what the agent and its runs have counted, as Prometheus reads it.
    """
    config = settings.load()
    from agent.metrics import AgentMetrics
    from agent.work_dir import WorkDir
    from pipelines.metrics.values import exposition

    file = config.metrics.textfile or WorkDir(config.work_dir).metrics
    click.echo(exposition(AgentMetrics(file).samples()), nl=False)
