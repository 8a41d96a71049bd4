"""One example stack for all tests: its settings, its cluster, its team, and where its proxy is."""

from collections.abc import Mapping
from dataclasses import replace

from teleport_eks.access import Team
from teleport_eks.aws_auth.text import Entry
from teleport_eks.cluster import Cluster, MappedCluster, Site
from teleport_eks.cluster_access import Names
from teleport_eks.proxy import TeleportProxy, TeleportProxyArgs
from teleport_eks.settings import Settings, parse
from teleport_eks.subnets import Subnet
from teleport_eks.userdata import HostConfig
from tests.recorder import Recorder, record

CONFIG = {"clusterName": "demo", "acmeEmail": "platform@example.com"}
ROLE = "arn:aws:iam::111122223333:role/teleport"
ENTRY = Entry(ROLE, "teleport", ("teleport-group",))  # of aws-auth
INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
PARAMETERS = "arn:aws:ssm:eu-west-1:111122223333:parameter/teleport-eks/dev"
ROOT = """-----BEGIN CERTIFICATE-----
MIIBdjCCARugAwIBAgIUBqCjXUIwgPKEjnko/RgaqxYQlSIwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEcm9vdDAgFw0yNjExMjUwMTUzMjhaGA8yMTI2MTEwMTAxNTMy
OFowDzENMAsGA1UEAwwEcm9vdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABDMt
zZeK1q/W9uVLpx3FSpKyhzF2agVTKXFp3EA1FOSNR/4kMptPVEqg6sthIFWQ/WeK
KG4Q9rsuKKQVEhVEWjajUzBRMB0GA1UdDgQWBBSlZL1EnoJmKq6cdBVFZT9MN17X
7DAfBgNVHSMEGDAWgBSlZL1EnoJmKq6cdBVFZT9MN17X7DAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0kAMEYCIQDbiUgo3koc/5DpWoi0IOnZmaHw5rWYyaFw
bYX1Me1UOgIhALG0KGeeCpfbypCi8mWH8YlJMmdFGFNmsUIMimHk43cd
-----END CERTIFICATE-----
"""  # of a private certificate authority
PLATFORM = Team.model_validate(
    {"organization": "Acme", "team": "platform", "logins": ["deploy"], "kubernetesGroups": ["platform", "oncall"]}
)
CLUSTER = Cluster(
    name="demo",
    arn="arn:aws:eks:eu-west-1:111122223333:cluster/demo",
    endpoint="https://demo.eks",
    certificate_authority="Q0E=",
    authentication_mode="API_AND_CONFIG_MAP",
    vpc_id="vpc-1",
    security_group_id="sg-cluster",
    endpoint_public_access=True,
    endpoint_private_access=True,
    public_access_cidrs=("0.0.0.0/0",),
)
PUBLIC = Subnet("subnet-2", "vpc-1", "10.0.2.0/24", "eu-west-1b", {"Name": "b-public"})


TOOLS = MappedCluster(replace(CLUSTER, name="tools", security_group_id="sg-tools"), "access-entry", "-tools")


def site(access_mode: str = "aws-auth", *additional: MappedCluster, **more: str) -> Site:
    return Site((MappedCluster(CLUSTER, access_mode, **more), *additional), PUBLIC, Names())


SITE = site()


def settings(**config: str) -> Settings:
    return parse({**CONFIG, **config}, "dev")


HOST = HostConfig(
    settings=settings(),
    stack="dev",
    region="eu-west-1",
    hostname="ec2-203-0-113-5.nip.io",
    public_ip="203.0.113.5",
    volume_id="vol-0123456789abcdef0",
    parameters_path="/teleport-eks/dev",
)
# All that adds something to the host.
HOST_WITH_ALL = replace(
    HOST,
    settings=settings(
        alarmTopicArn="arn:aws:sns:eu-west-1:111122223333:on-call",
        logRetentionDays="90",
        privateCa=ROOT,
        acmeServer="https://ca.example.com/directory",
        acmeEabKeyId="kid-1",
        acmeEabKey="0123456789abcdef",
    ),
    hostname="teleport.example.com",
    dns_zone_id="Z0123456789ABC",
    recordings_url="s3://teleport-recordings-1234567/records",
)
# The same on several nodes.
HA_HOST = replace(
    HOST_WITH_ALL,
    settings=HOST_WITH_ALL.settings.model_copy(
        update={"topology": "ha", "kms_key_arn": "arn:aws:kms:eu-west-1:111122223333:key/5c4c8b1e-0000-4000-8000-0000"}
    ),
    public_ip=None,
    volume_id=None,
    state_table="teleport-eks-dev-state-1234567",
    events_table="teleport-eks-dev-events-1234567",
)


def host_with(**config: str) -> HostConfig:
    return replace(HOST, settings=settings(**config))


def record_proxy(config: Mapping[str, str], site: Site = SITE) -> Recorder:
    """What the whole program declares for ``config``."""
    return record(lambda: TeleportProxy("teleport", TeleportProxyArgs("dev", settings(**config), site)))
