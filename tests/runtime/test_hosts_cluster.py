"""The contract on a cluster of two nodes; that lanes run where the trace says; nodes that die, are gone, come late."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from model.errors import ConfigError, RunFailed, UsageError
from runtime.executors import Executor, open_executor
from runtime.plan import Flow, Plan
from runtime.stage import Context, Stage
from runtime.trace import Trace
from tests.clusters import Nodes, nodes
from tests.contracts.executor import ExecutorContract, Gatherer, Job, Ledger, Part, Reader, Revealing, Slow, jobs

pytestmark = pytest.mark.ray


class Whereabouts(Stage[Part, Part]):
    """Puts the node it runs on in the place of the lane."""

    def open(self, context: Context) -> None:
        import ray

        self._node = f"{context.lane_name} {ray.get_runtime_context().get_node_id()}"

    def push(self, item: Part) -> Iterator[Part]:
        yield Part(item.seqs, item.body, f"{item.lane},{self._node}")


def plan_of(lanes: int = 2, seconds: float = 0.0, gather: int = 1) -> Plan:
    return (
        Flow[Job]("list")
        .then("read", Reader(), lanes)
        .then("first", Whereabouts(), lanes)
        .then("slow", Slow(seconds), lanes)
        .then("second", Whereabouts(), lanes)
        .then("gather", Gatherer(gather), lanes)
        .plan("p", sink="keep")
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with nodes(tmp_path_factory.mktemp("cluster") / "token", cpus=2, site="a") as cluster:
        cluster.add(cpus=2, site="b")
        yield cluster


@pytest.fixture(scope="class")
def session(cluster: Nodes) -> Iterator[Executor]:
    with open_executor("ray", cluster.options) as executor:
        yield executor


class TestCluster(ExecutorContract):
    @pytest.fixture
    def executor(self, session: Executor) -> Executor:
        return session

    def test_lanes_are_shared_by_the_hosts(self, executor: Executor) -> None:
        assert list(executor.cpus) == [2, 2]
        trace = executor.run(plan_of(lanes=4), jobs(40), Ledger())
        hosts = [host for _, host in trace.placed]
        assert sorted(lane for lane, _ in trace.placed) == [f"p-{number}#1" for number in range(4)]
        assert sorted(hosts.count(host) for host in set(hosts)) == [2, 2]

    def test_a_secret_arrives_and_lies_nowhere(self, executor: Executor, cluster: Nodes) -> None:
        assert executor.keep is not None
        secret = executor.keep(b"xyzzy-plugh-plover")
        sink = Ledger()
        executor.run(Flow[Job]().then("read", Reader()).then("tell", Revealing(secret)).plan("p"), jobs(1), sink)
        assert bytes(sink.parts[0].body) == b"77 xyzzy-plugh-plover"
        session = Path(cluster._directory)
        found = [path for path in session.rglob("*") if path.is_file() and b"xyzzy-plugh" in path.read_bytes()]
        assert found == []


def placed(plan: Plan, **labels: Mapping[str, str]) -> Plan:
    """The plan with labels for stages, by name."""
    nodes = tuple(replace(node, placement=labels.get(node.name, {})) for node in plan.nodes)
    return replace(plan, nodes=nodes)


def run_on(cluster: Nodes, plan: Plan) -> tuple[Trace, Ledger]:
    sink, wanted = Ledger(), [node.placement for node in plan.nodes if node.placement]
    with open_executor("ray", cluster.options, wanted) as executor:
        return executor.run(plan, jobs(40, size=200_000), sink), sink


def test_stages_run_where_they_are_placed(cluster: Nodes) -> None:
    a, b = (node.node_id for node in cluster.list())
    trace, _ = run_on(cluster, placed(plan_of(), read={"site": "b"}))
    assert {host.rpartition("/")[2] for _, host in trace.placed} == {b[:6]}
    plan = plan_of()
    plan = replace(plan, nodes=plan.nodes[:-1])  # the last stage forgets where parts have been
    trace, sink = run_on(cluster, placed(plan, read={"site": "a"}, second={"site": "b"}))
    assert sorted(sink.seen) == list(range(40))
    for part in sink.parts:
        assert bytes(part.body) == bytes([part.seqs[0] % 251]) * 200_000
        first, second = part.lane.split(",")[1:]
        assert (first.split()[1], second.split()[1]) == (a, b)
        told = dict(trace.placed)
        assert told[first.split()[0]].endswith(a[:6])
        assert told[second.split()[0]].endswith(b[:6])


def test_what_cannot_be_joined_is_told(cluster: Nodes, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only Ray"), open_executor("threads", cluster.options):
        pass
    with pytest.raises(RunFailed, match="no host is left for the lanes: site=nowhere"):
        run_on(cluster, placed(plan_of(), read={"site": "nowhere"}))
    with (
        pytest.raises(RunFailed, match=r"no Ray cluster answers: 127\.0\.0\.1:9"),
        open_executor("ray", replace(cluster.options, address="127.0.0.1:9")),
    ):
        pass
    with (
        pytest.raises(ConfigError, match="cannot read the token"),
        open_executor("ray", replace(cluster.options, token_file="/nowhere")),
    ):
        pass
    other = tmp_path / "token"
    other.touch(0o600)
    other.write_text("another token, long enough to be one\n")
    with (
        pytest.raises(RunFailed, match="used another Ray before"),
        open_executor("ray", replace(cluster.options, token_file=os.fspath(other))),
    ):
        pass


def test_a_node_is_lost_with_all_it_held_and_a_late_one_takes_over(tmp_path: Path) -> None:
    with nodes(tmp_path / "token", site="a") as cluster:
        lost, late = cluster.add(site="b", cpus=2), None

        def feed() -> Iterator[Job]:
            nonlocal late
            for job in jobs(120):
                if job.seq == 40:
                    late = cluster.add(site="b", cpus=2)
                if job.seq == 60:
                    cluster.remove(lost)
                yield job

        sink, begin = Ledger(), time.monotonic()
        plan = placed(plan_of(lanes=2, seconds=0.005, gather=50), read={"site": "b"})
        with open_executor("ray", cluster.options, [{"site": "b"}]) as executor:
            trace = executor.run(plan, feed(), sink)
        assert sorted(sink.seen) == list(range(120))
        assert trace.deaths >= 2
        assert trace.replayed > 0
        assert late is not None
        assert [host.rpartition("/")[2] for _, host in trace.placed][:2] == [lost.node_id[:6]] * 2
        assert trace.placed[-1][1].endswith(late.node_id[:6])
        assert time.monotonic() - begin < 60
