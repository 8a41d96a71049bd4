"""Several nodes: which one asks for the certificate they share, what if that one dies, and how they find each other."""

import contextlib
import dataclasses
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from teleport_eks.ports import Port
from teleport_eks.settings import Settings
from tests.boot.rig import ACCESS, BOOT, CERTIFICATE, IMDS, REFUSED, Host, Rig, libfaketime
from tests.tables import create_tables
from tests.waiting import wait_for

MAINTENANCE, PEER = "teleport-maintenance", "teleport-peer"
HAPROXY = "/etc/teleport-eks/haproxy.cfg"
CLAIM = "/var/lib/teleport/claim-{}"  # what a node has seen of another's claim, and since when
ISSUE = "/usr/local/lib/teleport-eks/issue"
WAITS = "another node asks for a certificate"


def moved(settings: Settings, port: int) -> Settings:
    """The same settings with another web port."""
    kind = type("Moved", (Settings,), {"web_port": property(lambda _: port)})
    return kind.model_construct(**dict(settings))


class Auth(socketserver.ThreadingTCPServer):
    """A node's auth service, which says where it is. Each connection is open until one side ends it."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, address: str) -> None:
        super().__init__((address, int(Port.AUTH)), socketserver.BaseRequestHandler)
        self.open = set[socket.socket]()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def finish_request(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  the library's
        self.open.add(request)
        with contextlib.suppress(OSError):
            request.sendall(str(self.server_address[0]).encode())
            request.recv(1)

    def die(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Nodes:
    """The nodes of one stack, and what they share. They are in one network, so they differ in their web port, and each
    has an address of its own where instances have 127.0.0.1 for themselves.
    """

    def __init__(self, rig: Rig) -> None:
        self.rig, self.world = rig, rig.world
        self.table = f"state-{rig.number}"
        self.auths: dict[str, Auth] = {}
        self.table_api = self.world.aws("dynamodb")
        create_tables(self.table_api, self.table, f"events-{rig.number}")
        zone = self.world.aws("route53").create_hosted_zone(Name="example.org", CallerReference=self.table)
        self.zone_id = zone["HostedZone"]["Id"].rpartition("/")[2]

    def off(self) -> Host:
        number = len(self.rig.hosts)
        config = self.rig.config(
            topology="ha",
            public_ip=None,
            volume_id=None,
            state_table=self.table,
            events_table="events",
            recordings_url="s3://recordings/records",
            dns_zone_id=self.zone_id,
        )
        return self.rig.add(dataclasses.replace(config, settings=moved(config.settings, 3080 + 100 * number)), None)

    def add(self) -> Host:
        """A node after its boot, with the pair that it has signed itself."""
        node = self.off()
        node.power_on()
        node.write("/var/lib/cloud/data/instance-id", f"i-{node.name}")
        node.write_user_data()
        address = self.address(node)
        node.write(HAPROXY, node.read(HAPROXY).replace("127.0.0.1", address))
        node.configure(LOOK="0.1", AWS_EC2_METADATA_SERVICE_ENDPOINT=f"http://127.0.0.1:{IMDS}/{address}")
        node.succeed(BOOT)
        self.world.clear()
        return node

    def address(self, node: Host) -> str:
        return f"127.0.0.{11 + self.rig.hosts.index(node)}"

    def reached(self, node: Host) -> tuple[str, socket.socket]:
        """Where the auth service is to which the node's services come, and the connection, which is still open."""
        connection = socket.create_connection((self.address(node), int(Port.OTHER_AUTH)), 10)
        return connection.recv(100).decode(), connection

    def wait_reaches(self, node: Host, other: Host) -> socket.socket:
        wanted, found = self.address(other), []

        def look() -> bool:
            with contextlib.suppress(OSError):
                found.append(self.reached(node))
            return bool(found) and found[-1][0] == wanted

        wait_for(look, f"{node.name} does not reach {other.name}")
        return found[-1][1]

    def item(self, name: str) -> dict[str, str]:
        key = {"HashKey": {"S": "teleport-eks"}, "FullPath": {"S": name}}
        item = self.table_api.get_item(TableName=self.table, Key=key, ConsistentRead=True).get("Item", {})
        return {attribute: value["S"] for attribute, value in item.items()}

    def claim(self) -> str:
        return self.item("certificate").get("Claim", "")

    def change(self, **attributes: str) -> None:
        """Changes the item with the certificate and the claim on it."""
        item = {"HashKey": "teleport-eks", "FullPath": "certificate", **self.item("certificate"), **attributes}
        self.table_api.put_item(TableName=self.table, Item={key: {"S": value} for key, value in item.items()})

    def stored(self) -> str:
        """The pair in the table. Empty if there is none."""
        return self.item("certificate").get("Pem", "")

    def wait_served(self, *served: Host) -> None:
        """Waits until these nodes serve the stored certificate."""
        stored = self.stored()
        assert stored
        for node in served:
            wait_for(lambda node=node: node.certificate().strip() in stored, f"{node.name} serves another certificate")
            node.wait_trusted()


@pytest.fixture
def nodes(rig: Rig) -> Iterator[Nodes]:
    made = Nodes(rig)
    yield made
    for auth in made.auths.values():
        auth.die()


def finish(process: subprocess.Popen[str]) -> str:
    """Waits for the end of a unit that `begin` has started. It must succeed."""
    console, journal = process.communicate(timeout=120)
    assert process.returncode == 0, console + journal
    return console


def begin_to_wait(node: Host) -> subprocess.Popen[str]:
    """Starts the unit on a node that has to wait for another one."""
    process = node.begin(CERTIFICATE)
    assert process.stdout
    while WAITS not in (line := process.stdout.readline()):
        assert line, "the unit did not wait"
    return process


def let_claims_age(node: Host, name: str = "certificate") -> None:
    """As if the node had seen the same claim of another for long."""
    wait_for(lambda: node.read(CLAIM.format(name)), "the node has not seen a claim")
    since, claim = node.read(CLAIM.format(name)).split(" ", 1)
    node.write(CLAIM.format(name), f"{int(since) - 1000} {claim}")


def test_one_node_asks_and_all_serve_the_same_certificate(nodes: Nodes) -> None:
    first, second = nodes.add(), nodes.add()
    pids = [node.read("/run/teleport.pid") for node in (first, second)]
    for process in [node.begin(CERTIFICATE) for node in (first, second)]:
        finish(process)
    assert nodes.world.orders() == 1
    late = nodes.add()
    late.succeed(CERTIFICATE)
    nodes.wait_served(first, second, late)
    assert nodes.world.orders() == 0
    assert pids == [node.read("/run/teleport.pid") for node in (first, second)], "Teleport was not restarted"
    assert not nodes.claim()
    kept = late.data()
    late.succeed(CERTIFICATE)
    assert late.data() == kept
    assert not nodes.world.asked("UpdateItem|PutItem")


def test_a_node_starts_by_itself_and_has_its_own_name(nodes: Nodes) -> None:
    """Without an address, a volume or another node. After a reboot too, when cloud-init has written its files again."""
    node = nodes.add()
    for _ in range(2):
        assert f"nodename: i-{node.name}\n" in node.read("/etc/teleport.yaml")
        assert node.ping()
        assert not nodes.world.asked("imds")
        node.reboot()
        node.write_user_data()
        node.succeed(BOOT)


STEPS = {
    "has the claim": "acme POST /order-plz",
    "has an order": "aws POST .*rrset",
    "has proved the name": "acme POST /finalize",
    "has the certificate": "DynamoDB_.*PutItem",
}


@pytest.mark.parametrize("step", STEPS)
def test_the_node_that_asks_dies_and_another_one_takes_over(nodes: Nodes, step: str) -> None:
    first, second = nodes.add(), nodes.add()
    fault = nodes.world.fault(STEPS[step], "hang", times=1)
    process = first.begin(CERTIFICATE)
    if not fault.reached.wait(60):
        first.kill(CERTIFICATE)
        pytest.fail(f"the first node never {step}: {process.communicate()}")
    waiting = begin_to_wait(second)
    first.power_off()
    process.communicate()
    nodes.world.clear()
    let_claims_age(second)
    finish(waiting)
    assert nodes.world.orders() == 1
    nodes.wait_served(second)
    first.power_on()
    first.succeed(BOOT)
    first.succeed(CERTIFICATE)
    nodes.wait_served(first, second)
    assert nodes.world.orders() == 1


def test_a_reboot_of_the_node_that_asks_costs_no_second_certificate(nodes: Nodes) -> None:
    node = nodes.add()
    fault = nodes.world.fault("DynamoDB_.*PutItem", "hang", times=1)
    process = node.begin(CERTIFICATE)
    assert fault.reached.wait(60)
    node.reboot()
    process.communicate()
    nodes.world.clear()
    node.succeed(BOOT)
    node.succeed(CERTIFICATE)  # its own claim is no reason to wait
    nodes.wait_served(node)
    assert nodes.world.orders() == 0


def test_a_claim_counts_while_its_node_lives_whatever_the_clocks_say(nodes: Nodes) -> None:
    asks, ahead, behind = nodes.add(), nodes.add(), nodes.add()
    asks.configure(LEASE="4")  # so it claims again each second
    ahead.configure(LEASE="12", LD_PRELOAD=libfaketime(), FAKETIME="+1h")
    behind.configure(LEASE="12", LD_PRELOAD=libfaketime(), FAKETIME="-1h")
    fault = nodes.world.fault("acme POST /order-plz", "hang", times=1)
    process = asks.begin(CERTIFICATE)
    assert fault.reached.wait(60)
    others = [begin_to_wait(node) for node in (ahead, behind)]
    begun = uptime()
    wait_for(lambda: uptime() > begun + 14, "no time passes")
    assert nodes.world.orders() == 1
    assert [other.poll() for other in others] == [None, None]
    asks.power_off()
    process.communicate()
    nodes.world.clear()
    behind.kill(CERTIFICATE)
    others[1].communicate()
    finish(others[0])
    assert nodes.world.orders() == 1
    assert ahead.is_trusted()


def uptime() -> float:
    with open("/proc/uptime") as file:
        return float(file.read().split()[0])


def test_a_claim_of_a_node_that_is_gone(nodes: Nodes) -> None:
    nodes.change(Claim="i-gone 4102444800.5")
    node = nodes.add()
    process = begin_to_wait(node)
    # What was seen before a reboot does not count: the time since then is not known.
    node.write(CLAIM.format("certificate"), f"{int(uptime()) + 1000} i-gone 4102444800.5\n")
    wait_for(lambda: int(node.read(CLAIM.format("certificate")).split()[0]) <= uptime(), "it still counts")
    assert process.poll() is None
    let_claims_age(node)
    finish(process)
    nodes.wait_served(node)
    assert nodes.world.orders() == 1
    assert not nodes.claim()


def test_nobody_else_asks_while_a_refused_node_waits(nodes: Nodes) -> None:
    first, second = nodes.add(), nodes.add()
    first.configure(PAUSE_FIRST="6000", PAUSE_MAX="6000")
    first.world.limit_orders("retry after a while")
    first.fail(CERTIFICATE, "refused: .*too many certificates")
    waiting = begin_to_wait(second)
    pause = first.begin(CERTIFICATE)  # as systemd does after a minute
    assert pause.stdout
    while "after attempt 1: " not in (line := pause.stdout.readline()):
        assert line
    nodes.world.clear()
    held = nodes.claim()
    assert held.startswith(f"i-{first.name} ")
    assert waiting.poll() is None
    assert nodes.world.orders() == 0
    first.path(REFUSED).unlink()  # what the message says to do
    finish(pause)
    finish(waiting)
    nodes.wait_served(first, second)
    assert nodes.world.orders() == 1


def test_a_node_that_cannot_ask_lets_another_one_try(nodes: Nodes) -> None:
    first, second = nodes.add(), nodes.add()
    first.sh("rm /usr/local/sbin/certbot; mount --bind /dev/null /usr/bin/certbot || true")
    first.fail(CERTIFICATE, "certbot is not installed yet")
    assert not nodes.claim()
    second.succeed(CERTIFICATE)
    first.succeed(CERTIFICATE)
    nodes.wait_served(first, second)


@pytest.mark.parametrize(
    ("request_", "message"),
    [("DynamoDB_.*GetItem", "cannot read the table"), ("DynamoDB_.*UpdateItem", "cannot read or write the table")],
)
def test_nobody_asks_if_it_is_not_known_what_the_others_have(nodes: Nodes, request_: str, message: str) -> None:
    node = nodes.add()
    before = node.certificate()
    nodes.world.fault(request_, "fail", body=b"{}")
    node.fail(CERTIFICATE, f"{message}.*; the pair in service stays")
    assert nodes.world.asked(request_)
    assert nodes.world.orders() == 0
    assert node.certificate() == before


def test_a_stored_pair_that_is_due_or_of_no_use_is_replaced(nodes: Nodes) -> None:
    first, second = nodes.add(), nodes.add()
    first.succeed(CERTIFICATE)
    good = nodes.stored()
    of_another_authority = good.replace("https://127.0.0.1", "https://staging.example", 1)
    # In the last case only the second node finds that the pair is due.
    for stored, renew_before in ((of_another_authority, "60"), ("-", "60"), (good, "999999999")):
        nodes.change(Pem=stored)
        second.sh("rm -rf /var/lib/teleport/letsencrypt/{live,archive,renewal}")  # certbot keeps what it finds there
        second.configure(RENEW_BEFORE=renew_before)
        nodes.world.clear()
        second.succeed(CERTIFICATE)
        first.succeed(CERTIFICATE)
        assert nodes.world.orders() == 1, stored
        assert nodes.stored() not in (stored, good)
        nodes.wait_served(first, second)


def test_a_node_that_lost_its_claim_does_not_store_an_older_pair(nodes: Nodes) -> None:
    node = nodes.add()
    node.sh(f"mv {ISSUE} {ISSUE}-now")
    # The unit may write below this folder only.
    issued, go = "/var/lib/teleport/issued", "/var/lib/teleport/go"
    node.write(ISSUE, f"#!/bin/sh\n{ISSUE}-now && touch {issued} && until [ -e {go} ]; do sleep 0.1; done", 0o755)
    process = node.begin(CERTIFICATE)
    wait_for(lambda: node.path(issued).exists(), "the node gets no certificate")
    nodes.change(Claim="i-other 4102444800.5", Pem="newer")
    node.write(go, "")
    console, journal = process.communicate(timeout=120)
    assert process.returncode, console + journal
    assert "cannot write to the table" in console
    assert nodes.stored() == "newer"
    assert nodes.claim() == "i-other 4102444800.5"


def test_all_nodes_have_one_acme_account(nodes: Nodes) -> None:
    """A key that binds an account may be good only once."""
    first = nodes.add()
    first.succeed(CERTIFICATE)
    first.power_off()
    second = nodes.add()
    second.configure(RENEW_BEFORE="999999999")
    second.succeed(CERTIFICATE)
    assert nodes.world.orders() == 1
    assert not nodes.world.asked("acme POST /sign-me-up")
    nodes.wait_served(second)


def test_one_node_at_a_time_applies_the_stacks_teams(nodes: Nodes) -> None:
    """Otherwise each would apply everything again when it sees the other's new revision."""
    first, second = nodes.add(), nodes.add()
    nodes.rig.set_teams(first, "backend")
    first.succeed(ACCESS)
    assert "role/backend" in first.resources()
    second.succeed(ACCESS)
    assert not second.resources()
    first.power_off()
    second.succeed(ACCESS)
    assert not second.resources()
    let_claims_age(second, "access")
    second.succeed(ACCESS)
    assert "role/backend" in second.resources()
    nodes.world.fault("DynamoDB_", "fail", body=b"{}")
    assert second.start(ACCESS).code, "nobody is told that nothing is applied"


def test_one_node_at_a_time_reboots(nodes: Nodes) -> None:
    first, second = nodes.add(), nodes.add()
    for node in (first, second):
        node.configure(LD_PRELOAD=libfaketime(), FAKETIME="'@2026-11-22 04:00:00'", TZ="UTC")  # a Sunday
        node.write_user_data(maintenance_window="Sun 03:00")
        node.write("/run/rig/reboot-hint", "Reboot is required")
        node.write("/run/rig/uptime", "86400.00 1.00\n")
        node.sh("mount --bind /run/rig/uptime /proc/uptime")
    first.succeed(MAINTENANCE)
    assert first.path("/run/rig/reboot").exists()
    run = second.succeed(MAINTENANCE)
    assert "another node may be rebooting" in run.console
    assert not second.path("/run/rig/reboot").exists()
    let_claims_age(second, "reboot")
    second.succeed(MAINTENANCE)
    assert second.path("/run/rig/reboot").exists()


def test_services_use_the_auth_service_of_another_node_and_their_own_if_there_is_no_other(nodes: Nodes) -> None:
    def start_auth(node: Host) -> None:
        nodes.auths[node.name] = Auth(nodes.address(node))

    first = nodes.add()
    first.succeed(PEER)
    start_auth(first)
    nodes.wait_reaches(first, first)  # a node alone starts

    second = nodes.add()
    for node in (second, first):  # in this order the second one reads what the first one wrote before
        node.succeed(PEER)
    own = nodes.wait_reaches(first, first)
    start_auth(second)
    assert own.recv(1) == b"", "HAProxy ends connections to the own one when the other one is up"
    kept = nodes.wait_reaches(first, second)
    nodes.wait_reaches(second, first)

    assert f"teleport-eks: step {PEER}" not in first.succeed(PEER).console, "nothing is new"
    kept.setblocking(False)
    with pytest.raises(BlockingIOError):  # still open
        kept.recv(1)

    second.power_off()
    nodes.auths.pop(second.name).die()
    nodes.wait_reaches(first, first)
    third = nodes.add()
    for node in (third, first):
        node.succeed(PEER)
    start_auth(third)
    nodes.wait_reaches(first, third)
    nodes.wait_reaches(third, first)

    nodes.world.fault("DynamoDB_", "fail", body=b"{}")
    first.fail(PEER, "cannot write to the table")
    nodes.wait_reaches(first, third)
