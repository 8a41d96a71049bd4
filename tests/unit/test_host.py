"""The instance, and the wait for it. The policy pack's rules check its metadata options and its encryption."""

from teleport_eks.credentials import Credentials
from teleport_eks.host import BootArgs, ProxyHost, ProxyHostArgs
from tests.examples import ROLE, settings
from tests.recorder import Recorder, record


def declare(**config: str) -> Recorder:
    boot = BootArgs(
        settings=settings(instanceType="t4g.small", teleportVersion="18.10.1", **config),
        security_group_id="sg-1",
        instance_profile="profile",
        user_data="Zm9v",
        hostname="a.nip.io",
        revision="0a1b2c",
        region="eu-west-1",
        credentials=Credentials("ops", ROLE),
    )
    args = ProxyHostArgs(boot, subnet_id="subnet-2", allocation_id="eipalloc-1", volume_id="vol-1")
    return record(lambda: ProxyHost("proxy", args))


def test_pulumi_waits_for_a_new_instance_unless_wait_minutes_is_0() -> None:
    command = declare(waitMinutes="15").only("command:local:Command")
    assert command["create"].startswith(".venv/bin/python -m teleport_eks.ready --hostname a.nip.io --instance-id ")
    options = "--region eu-west-1 --minutes 15 --version 18.10.1 --revision 0a1b2c --port 3080"
    options += f" --profile ops --role-arn {ROLE}"
    assert command["create"].endswith(f" proxy-arm64-id {options}")
    assert command["triggers"] == ["proxy-arm64-id", "0a1b2c"]
    assert not declare(waitMinutes="0").has("command:local:Command")


def test_the_host_has_its_volume_and_address_and_no_ssh_key() -> None:
    declared = declare(waitMinutes="0")
    assert "keyName" not in declared.only("aws:ec2/instance:Instance")
    assert declared.only("aws:ec2/volumeAttachment:VolumeAttachment")["volumeId"] == "vol-1"
    assert declared.only("aws:ec2/eipAssociation:EipAssociation")["allocationId"] == "eipalloc-1"


def test_another_volume_replaces_the_instance_even_if_updates_are_in_place() -> None:
    # The provider stops an instance to detach its volume, and leaves it stopped.
    declared = declare(waitMinutes="0", hostUpdates="in-place")
    assert declared.requests["proxy-arm64"].replacement_trigger.string_value == "vol-1"
