"""Running plans on a Ray: one of our own on this host, or a cluster that was joined. Ray itself is handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runtime.actors import GROUP, LaneSettings, OneHost, RayHands, lost_errors
from runtime.drive import Control, Drive
from runtime.errands import Errand, ErrandControl, Errands
from runtime.gate import Gate, NetworkGate, UnixGate
from runtime.hosts import Hosts
from runtime.joining import ClusterOptions
from runtime.plan import Plan, Strand, fuse
from runtime.private import LentSecret, Secret, Vault
from runtime.schedule import WINDOW
from runtime.services import ServiceServer
from runtime.stage import Sink
from runtime.trace import Trace

if TYPE_CHECKING:
    from runtime.executors import ExecutorName


class RayExecutor:
    """Lanes as actors of one private Ray. Made by `open_ray`."""

    def __init__(self, ray: Any, directory: str, prepare: Callable[[], None], gate: Gate | None = None) -> None:
        self.name: ExecutorName = "ray"
        self.private_directory = directory  # 0700
        self.cpus: Sequence[int] = ()
        self._ray = ray
        self._prepare = prepare
        self._services = ServiceServer(gate or UnixGate(directory))

    @property
    def keep(self) -> Callable[[bytes], Secret] | None:
        """See `Executor.keep`."""
        return lambda value: Secret(value).store(self.private_directory)

    def host(self, services: Mapping[str, Any]) -> None:
        """See `Executor.host`."""
        self._services.add(services)

    def run(
        self,
        plan: Plan,
        feed: Iterable[Any],
        sink: Sink[Any],
        control: Control | None = None,
    ) -> Trace:
        """See `Executor.run`."""
        strands = fuse(plan)
        # Between strands bodies are under way, in one strand only descriptions of work: of those a lane may have more.
        window = WINDOW if len(strands) > 1 else 2 * GROUP
        drive = Drive(plan, strands, sink, control or Control(), self.name, window)
        return drive.run(feed, RayHands(self._ray, drive, self._settings(strands)))

    def _settings(self, strands: Sequence[Strand]) -> LaneSettings:
        return LaneSettings(self._services.remote(), self._prepare, OneHost())

    def close(self) -> None:
        """Take no more calls."""
        self._services.close()


class ClusterExecutor(RayExecutor):
    """Lanes as actors on the hosts of a cluster. Made by `open_cluster`."""

    def __init__(
        self,
        ray: Any,
        directory: str,
        prepare: Callable[[], None],
        options: ClusterOptions,
        token: bytes,
        placements: Sequence[Mapping[str, str]],
        hosts: Sequence[str] = (),
    ) -> None:
        gate = NetworkGate(ray.util.get_node_ip_address(), options.port, token, directory)
        super().__init__(ray, directory, prepare, gate)
        self._options = options
        self._vault = Vault()
        self._hosts = Hosts(ray, token, options.tls, self._bound_to, lost_errors(ray))
        try:
            self.host({"vault": self._vault})
            admitted = self._hosts.admit_named(hosts) if hosts else self._hosts.admit_all(placements or [{}])
            self.cpus = [host.cpus for host in admitted]
        except BaseException:
            self.close()
            raise

    @property
    def keep(self) -> Callable[[bytes], Secret] | None:
        """See `Executor.keep`."""
        vault = self._services.remote()["vault"]
        return lambda value: LentSecret(value, self._vault.keep(value), vault)

    def run(
        self,
        plan: Plan,
        feed: Iterable[Any],
        sink: Sink[Any],
        control: Control | None = None,
    ) -> Trace:
        """See `Executor.run`."""
        self._hosts.begin()
        trace = super().run(plan, feed, sink, control)
        return replace(trace, placed=tuple(self._hosts.placed))

    def run_errands(self, errands: Mapping[str, Errand], control: ErrandControl) -> tuple[dict[str, Any], int]:
        """See `HostsExecutor.run_errands`."""
        environment = self._options.lane_environment(len(errands))
        running = Errands(self._ray, self._hosts, self._services.remote(), self._prepare, environment)
        return running.run(errands, control), running.deaths

    def _settings(self, strands: Sequence[Strand]) -> LaneSettings:
        lanes = sum(strand.lanes for strand in strands)
        return LaneSettings(
            self._services.remote(),
            self._prepare,
            self._hosts,
            self._options.lane_environment(lanes),
        )

    def _bound_to(self, node: str) -> Mapping[str, Any]:
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        return {"scheduling_strategy": strategy(node, soft=False)}
