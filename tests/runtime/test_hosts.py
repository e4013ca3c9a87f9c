"""Who is let in and where lanes go, with nodes that are made up; real ones are in test_hosts_cluster.py."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from model.errors import RunFailed, UsageError
from runtime.hosts import Hosts, facts
from runtime.joining import ClusterOptions
from runtime.orders import Lane
from runtime.program import program

TOKEN = b"0123456789abcdef" * 4


class Gone(Exception):
    pass


def node(number: int, cpus: int = 2, address: str = "127.0.0.1", alive: bool = True, **labels: str) -> dict[str, Any]:
    return {
        "NodeID": f"{number:056x}"[::-1],
        "NodeManagerHostname": f"host{number}",
        "NodeManagerAddress": address,
        "Resources": {"CPU": float(cpus)} if cpus else {},
        "Labels": labels,
        "Alive": alive,
    }


class Cluster:
    """Answers like Ray for its nodes: each is asked in this process. `liars` add to what they say of themselves."""

    def __init__(self, *nodes: dict[str, Any]) -> None:
        self.table = list(nodes)
        self.liars: dict[str, Mapping[str, str]] = {}
        self.silent: set[str] = set()
        self.asked: list[str] = []

    def nodes(self) -> list[dict[str, Any]]:
        return self.table

    def remote(self, function: Any) -> Any:
        def options(node: str, **_: Any) -> Any:
            return SimpleNamespace(remote=lambda challenge: (node, function(challenge)))

        return SimpleNamespace(options=options)

    def get(self, answer: tuple[str, dict[str, str]], timeout: float) -> Mapping[str, str]:
        self.asked.append(answer[0])
        if answer[0] in self.silent:
            raise Gone
        return {**answer[1], **self.liars.get(answer[0], {})}

    def hosts(self, tls: str = "") -> Hosts:
        return Hosts(self, TOKEN, tls, lambda node: {"node": node}, (Gone,))


@pytest.fixture(autouse=True)
def authenticated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN.decode())


def lanes(hosts: Hosts, count: int, labels: Mapping[str, str] | None = None, generation: int = 1) -> list[str]:
    """Names of the hosts of so many lanes."""
    for number in range(count):
        hosts.place(Lane(0, number, generation), f"p-{number}#{generation}", labels or {})
    return [host.partition("/")[0] for _, host in hosts.placed[-count:]]


def test_lanes_go_where_processors_are() -> None:
    cluster = Cluster(node(1, cpus=1), node(2, cpus=3), node(3, cpus=0), node(4, alive=False))
    assert sorted(lanes(cluster.hosts(), 8)) == ["host1"] * 2 + ["host2"] * 6


def test_labels_are_obeyed() -> None:
    cluster = Cluster(node(1, site="a", net="wan"), node(2, site="b"), node(3, site="a"))
    hosts = cluster.hosts()
    assert set(lanes(hosts, 4, {"site": "a"})) == {"host1", "host3"}
    assert set(lanes(hosts, 4, {"site": "a", "net": "wan"})) == {"host1"}
    with pytest.raises(RunFailed, match="no host is left for the lanes: site=c"):
        lanes(hosts, 1, {"site": "c"})
    with pytest.raises(RunFailed, match="site=c"):
        hosts.admit_all([{"site": "a"}, {"site": "c"}])


def test_a_host_where_a_lane_died_is_the_last_resort() -> None:
    cluster = Cluster(node(1), node(2))
    hosts = cluster.hosts()
    assert lanes(hosts, 2) == ["host1", "host2"]
    hosts.left(Lane(0, 0, 1))
    assert lanes(hosts, 1, generation=2) == ["host2"]
    cluster.table = cluster.table[:1]
    assert lanes(hosts, 1, generation=3) == ["host1"]


def test_hosts_are_asked_once_and_late_ones_when_they_are_needed() -> None:
    cluster = Cluster(node(1))
    hosts = cluster.hosts()
    assert [host.cpus for host in hosts.admit_all([{}])] == [2]
    lanes(hosts, 2)
    assert len(cluster.asked) == 1
    cluster.table.append(node(2))
    assert lanes(hosts, 1, generation=2) == ["host2"]
    assert len(cluster.asked) == 2


def test_a_host_that_dies_when_asked_is_passed_over() -> None:
    cluster = Cluster(node(1), node(2))
    cluster.silent.add(cluster.table[0]["NodeID"])
    hosts = cluster.hosts()
    assert [host.name for host in hosts.admit_all([{}])] == ["host2"]
    assert lanes(hosts, 2) == ["host2", "host2"]
    cluster.table.pop()
    with pytest.raises(RunFailed, match=r"no host is left.*1 did not answer"):
        lanes(hosts, 1, generation=2)


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ({"lox": "0.0.1+abc"}, ["another version of lox", "0.0.1+abc there", f"{program()} here"]),
        ({"Python": "2.7"}, ["another version of Python", "2.7 there", f"{platform.python_version()} here"]),
        ({"auth": ""}, ["does not ask for the token", "whoever reaches its ports"]),
        ({"proof": "00" * 32}, ["does not ask for the token"]),
        ({"proof": "", "trouble": "others can read the token"}, ["others can read the token"]),
    ],
)
def test_a_host_that_is_not_one_of_ours_ends_the_run(lie: Mapping[str, str], words: list[str]) -> None:
    cluster = Cluster(node(1), node(2))
    cluster.liars[cluster.table[1]["NodeID"]] = lie
    for act in (lambda hosts: hosts.admit_all([{}]), lambda hosts: lanes(hosts, 2)):
        with pytest.raises(RunFailed) as caught:
            act(cluster.hosts())
        assert caught.value.subject.startswith("host2/")
        assert all(word in str(caught.value) for word in words), str(caught.value)


def test_nothing_crosses_a_network_in_the_clear() -> None:
    cluster = Cluster(node(1), node(2, address="192.0.2.7"))
    with pytest.raises(RunFailed, match=r"in the clear: host2/.* at 192\.0\.2\.7"):
        cluster.hosts().admit_all([{}])
    assert len(cluster.hosts("/etc/lox/tls").admit_all([{}])) == 2
    assert len(cluster.hosts("off").admit_all([{}])) == 2


def test_a_host_without_a_token_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    said = facts(b"challenge")
    assert "proof" not in said
    assert "without a token" in said["trouble"]


@pytest.mark.parametrize(
    ("address", "token", "tls", "why"),
    [
        ("nas1", "/t", "", "not an address"),
        ("nas1:0", "/t", "off", "not an address"),
        (":6379", "/t", "off", "not an address"),
        ("auto", "/t", "off", "not an address"),
        ("127.0.0.1:6379", "", "", "with its token"),
        ("nas1:6379", "/t", "", "in the clear"),
        ("[2001:db8::1]:6379", "/t", "", "in the clear"),
    ],
)
def test_clusters_that_are_not_joined(address: str, token: str, tls: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        ClusterOptions(address, token, tls)


def test_addresses_of_clusters() -> None:
    assert ClusterOptions("[::1]:6379", "/t").endpoint == ("::1", 6379)
    assert ClusterOptions("localhost:1", "/t").on_loopback
    assert not ClusterOptions("nas1:6379", "/t", "off").on_loopback


def test_the_program_is_told_from_another_of_its_version() -> None:
    version, _, digest = program().partition("+")
    assert version
    assert len(bytes.fromhex(digest)) == 6
