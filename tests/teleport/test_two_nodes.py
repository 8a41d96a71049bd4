"""Two nodes with one state, in DynamoDB and S3, behind a TCP balancer. People see one proxy, whichever node is lost.

The stack was a single host before, and is one again at the end.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
import yaml

from tests.boot.rig import IMDS, Host
from tests.tables import create_tables
from tests.teleport.balancer import Balancer
from tests.teleport.stage import Site
from tests.waiting import wait_for

A, B = "127.0.0.11", "127.0.0.12"
GET = "kubectl", "get", "pods", "-n", "shop"
BUCKET, STATE, EVENTS = "teleport-recordings-7654321", "teleport-state", "teleport-events"
TELEPORT, HAPROXY = "/etc/teleport.yaml", "/etc/teleport-eks/haproxy.cfg"
# Where this host's HAProxy has connections. `ss` names only processes that the host sees.
OPEN = "ss -Htnp state established dport = :3025 | grep haproxy | awk '{ print $4 }'"
SQLITE = {"type": "sqlite", "path": "/var/lib/teleport/backend"}
# What Teleport asks of tables that are there already. The last ones are rare.
TABLE = ("DescribeTable", "DescribeTimeToLive", "GetItem", "PutItem", "Query", "DeleteItem")
STREAM = ("DescribeStream", "GetRecords", "GetShardIterator")
RARE = ("BatchWriteItem", "TransactWriteItems", "UpdateItem")


class Nodes:
    """The single host's state moves to DynamoDB, and two nodes start, each with an empty disk."""

    def __init__(self, site: Site) -> None:
        self.site, self.authority, region = site, site.authority(), site.host.config.region
        self.ann = site.person("ann", ("acme", "dev"))
        self.ann.sign_in()  # here, and never again
        self.dynamodb, self.s3 = site.world.aws("dynamodb"), site.world.aws("s3")
        create_tables(self.dynamodb, STATE, EVENTS)
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": region})
        self.declared = self.tables()
        self.state = {"type": "dynamodb", "region": region, "table_name": STATE}
        zone = site.world.aws("route53").create_hosted_zone(Name="nip.io", CallerReference=STATE)["HostedZone"]["Id"]
        self.changes = {
            "topology": "ha",
            "public_ip": None,
            "volume_id": None,
            "state_table": STATE,
            "events_table": EVENTS,
            "recordings_url": f"s3://{BUCKET}/records",
            "dns_zone_id": zone.rpartition("/")[2],
        }
        self.clone(SQLITE, self.state)
        site.host.power_off()
        site.world.clear()
        self.balancers = [Balancer(port, [A, B]) for port in (3080, 3023, 3024, 3026)]
        self.hosts: dict[str, Host] = {}
        for address in (A, B):
            self.start(address)

    def clone(self, source: dict[str, str], target: dict[str, str]) -> None:
        """Stops Teleport on the site's host, and copies its state to where there is none."""
        host = self.site.host
        host.sh("kill $(cat /run/teleport.pid); while pgrep -x teleport; do sleep 0.1; done")
        if target == SQLITE:
            host.sh(f"rm -r {target['path']}")
        host.write("/root/clone.yaml", yaml.safe_dump({"src": source, "dst": target}))
        host.sh("set -a; . /etc/rig.env; teleport backend clone --config=/root/clone.yaml")

    def start(self, address: str) -> None:
        """A new instance, with this address where one that shares no network has all of its own."""
        host = self.site.new_host(**self.changes)
        host.write("/var/lib/cloud/data/instance-id", f"i-{host.name}")
        # As many attempts as the AWS SDK makes by itself. With the rig's one, Teleport ends if one request fails as it
        # starts.
        metadata = f"http://127.0.0.1:{IMDS}/{address}"
        host.configure(AWS_EC2_METADATA_SERVICE_ENDPOINT=metadata, AWS_MAX_ATTEMPTS="3")
        for file in (TELEPORT, HAPROXY):
            text = host.read(file)
            for own in ("0.0.0.0:", "127.0.0.1:"):
                text = text.replace(own, f"{address}:")
            host.write(file, text)
        # Each proxy uses its own Kubernetes service, as with 127.0.0.1 on instances that share no network.
        host.sh(f"sed -i 's/^kubernetes_service:/&\\n  public_addr: own.internal:3027/' {TELEPORT}")
        host.write("/etc/hosts", f"{host.read('/etc/hosts')}\n{address} own.internal\n")
        self.use(address)
        for unit in ("teleport-bootstrap", "teleport-certificate"):
            run = host.start(unit, timeout=120)
            assert run.code == 0, f"{run}\n{host.read('/var/log/rig/teleport.service.log')[-5000:]}"
        host.wait_trusted()
        self.hosts[address] = host
        for node in [*self.hosts.values()][::-1]:  # so that the last one finds the first one, and it finds the last one
            node.succeed("teleport-peer")
        if len(self.hosts) == 2:
            wait_for(self.lead_to_each_other, "a node's services stay with their own auth service")

    def lead_to_each_other(self) -> bool:
        """Do all connections of a node's services end at the other node's auth service?"""
        found = {address: set(host.sh(OPEN).split()) for address, host in self.hosts.items()}
        return found == {A: {f"{B}:3025"}, B: {f"{A}:3025"}}

    def use(self, *addresses: str) -> None:
        """The balancer passes new connections to these nodes."""
        for balancer in self.balancers:
            balancer.nodes = list(addresses)

    def tables(self) -> str:
        """All that may be declared of them."""
        found = [self.dynamodb.describe_table(TableName=table)["Table"] for table in (STATE, EVENTS)]
        for item in found + found[1]["GlobalSecondaryIndexes"]:
            for count in ("ItemCount", "TableSizeBytes", "IndexSizeBytes"):
                item.pop(count, None)
        return json.dumps(found, default=str, sort_keys=True)

    def back(self) -> None:
        """To a single host on the first volume, with the state of the nodes."""
        for host in self.hosts.values():
            host.power_off()
        for balancer in self.balancers:
            balancer.shutdown()
            balancer.server_close()
        host = self.site.host = self.site.new_host()
        run = host.start("teleport-bootstrap", timeout=120)
        assert run.code == 0, run
        self.clone(self.state, SQLITE)
        host.sh("systemctl start teleport.service")
        host.wait_trusted()


@pytest.fixture(scope="module")
def nodes(site: Site) -> Iterator[Nodes]:
    site.up()
    made = Nodes(site)
    yield made
    made.back()
    assert site.authority() == made.authority
    made.ann.can(*GET)


def test_nobody_signs_in_anew_after_the_move(nodes: Nodes) -> None:
    for address, host in nodes.hosts.items():
        nodes.use(address)
        nodes.site.host = host
        nodes.ann.can(*GET)
        assert nodes.site.authority() == nodes.authority


def test_who_signed_in_through_one_node_uses_the_other_at_once(nodes: Nodes) -> None:
    bill = nodes.site.person("bill", ("acme", "dev"))
    nodes.use(A)
    bill.sign_in()
    nodes.use(B)
    bill.can(*GET)


@pytest.mark.parametrize(("lost", "other"), [(A, B), (B, A)])
def test_a_node_is_lost(nodes: Nodes, lost: str, other: str) -> None:
    cleo = nodes.site.person(f"cleo-{lost[-1]}", ("acme", "dev"))
    olga = nodes.site.person("olga", ("acme", "audit"))
    nodes.use(lost)
    cleo.sign_in()
    olga.sign_in()
    watch, session = cleo.spawn(*GET, "-w"), cleo.open_shell()
    watch.expect_exact("web ")
    session.sendline("echo said-$((40 + 2))")
    session.expect_exact("said-42")
    time.sleep(1)  # what is said in the last second may be lost

    nodes.hosts[lost].power_off()
    nodes.use(lost, other)
    watch.expect(pexpect.EOF)
    session.expect(pexpect.EOF)
    assert watch.wait() == 0, "then the docs need not say that it ends without a word"
    assert session.wait() == 1
    assert "abnormal closure" in (session.before or "")
    cleo.can(*GET)

    # The other node puts what was said into the bucket. Teleport completes such an upload a day later.
    wait_for(lambda: parts(nodes), "no part of the recording is in the bucket")
    ((place, done),) = parts(nodes)
    nodes.s3.complete_multipart_upload(**place, MultipartUpload={"Parts": done})
    assert "said-42" in olga.can("tsh", "play", "--format=text", place["Key"].split("/")[1].removesuffix(".tar"))

    nodes.start(lost)
    cleo.can(*GET)


def test_nodes_are_replaced_one_by_one(nodes: Nodes) -> None:
    """By a newer release, if TELEPORT_NEXT is the folder of one. Otherwise by the same one."""
    if release := os.environ.get("TELEPORT_NEXT"):
        nodes.site.publish(Path(release))
    dora = nodes.site.person("dora", ("acme", "dev"))
    nodes.use(A, B)
    dora.sign_in()
    for address, other in ((A, B), (B, A)):
        nodes.use(other)
        nodes.hosts[address].sh("systemctl stop teleport.service")
        nodes.hosts[address].power_off()
        # In the first two seconds a command may fail.
        wait_for(lambda: dora.run(*GET).returncode == 0, "the node that is left does not answer")
        nodes.start(address)
        dora.can(*GET)  # through the new one, and beside it the old one still runs
    for address, host in nodes.hosts.items():
        nodes.use(address)
        nodes.site.host = host
        assert f"v{nodes.site.version} " in host.sh("teleport version")
        assert nodes.site.authority() == nodes.authority
        dora.can(*GET)


def parts(nodes: Nodes) -> list[tuple[dict[str, str], list[dict]]]:
    """The open uploads that have parts."""
    found = nodes.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    places = [{"Bucket": BUCKET, "Key": item["Key"], "UploadId": item["UploadId"]} for item in found]
    listed = [(place, nodes.s3.list_parts(**place).get("Parts") or []) for place in places]
    return [(place, [{key: part[key] for key in ("PartNumber", "ETag")} for part in of]) for place, of in listed if of]


def test_teleport_asks_no_more_of_the_tables_and_leaves_them_as_they_are(nodes: Nodes) -> None:
    requests = [request.partition("_20120810.") for request in nodes.site.world.requests]
    asked = {action for service, _, action in requests if service.startswith("aws DynamoDB")}
    assert asked - {*RARE} == {*TABLE, *STREAM}
    assert nodes.tables() == nodes.declared
