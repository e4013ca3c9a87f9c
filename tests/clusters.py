"""A Ray cluster of several nodes on this host: as many "hosts" as a test wants, with labels, that come and go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime import cluster as ray_module
from runtime.joining import ClusterOptions
from runtime.private import private_directory

STORE_BYTES = 80 << 20  # the least Ray takes
QUICK = {  # how long a node may be silent: a test does not want to wait half a minute
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}


class Nodes:
    """The nodes of a `ray.cluster_utils.Cluster`, hardened as docs/cluster.md wants it. Made by `nodes`."""

    def __init__(self, cluster: Any, directory: str, token_file: Path) -> None:
        self._cluster = cluster
        self._directory = directory
        self.options = ClusterOptions(cluster.address, os.fspath(token_file))

    def add(self, cpus: int = 1, **labels: str) -> Any:
        """One more node; its id is ``node.node_id``."""
        return self._cluster.add_node(
            num_cpus=cpus,
            labels=labels,
            object_store_memory=STORE_BYTES,
            temp_dir=f"{self._directory}/r",
            include_dashboard=False,
        )

    def list(self) -> list[Any]:
        """All nodes, the head first."""
        nodes: list[Any] = self._cluster.list_all_nodes()
        return nodes

    def remove(self, node: Any) -> None:
        """As if the power of a host were cut: SIGKILL for all of its processes."""
        for process in [*node.all_processes.values()]:
            for info in process:
                _kill_family(info.process.pid)
        self._cluster.remove_node(node, allow_graceful=False)


def _kill_family(pid: int) -> None:
    import psutil

    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return
    for process in family:
        try:
            process.kill()
        except psutil.Error:
            continue


@contextmanager
def nodes(token_file: Path, cpus: int = 1, **labels: str) -> Iterator[Nodes]:
    """A cluster with one node, its head, on the loopback; `token_file` is written. All of it is ended at the end."""
    token_file.touch(0o600)
    token_file.write_text(ray_module.TOKEN + "\n")
    with ray_module._environment(ray_module.ENVIRONMENT), private_directory() as directory:
        mask = os.umask(0o077)
        try:
            import ray._private.utils as ray_utils
            from ray.cluster_utils import Cluster

            # It would tell everybody on this machine, in Ray's common directory, that here is a cluster to join.
            ray_utils.write_ray_address = lambda *_: None
            head = {
                "num_cpus": cpus,
                "labels": labels,
                "object_store_memory": STORE_BYTES,
                "temp_dir": f"{directory}/r",
                "include_dashboard": False,
                "_system_config": QUICK,
            }
            cluster: Any = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
            try:
                yield Nodes(cluster, directory, token_file)
            finally:
                cluster.shutdown()
        finally:
            ray_module._end_processes(directory)
            os.umask(mask)
