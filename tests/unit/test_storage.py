"""The data volume and its snapshots."""

from teleport_eks.storage import ProxyStorage, ProxyStorageArgs
from tests.examples import settings
from tests.recorder import Recorder, record


def declare(snapshot_days: str) -> Recorder:
    config = settings(dataVolumeSize="30", dataSnapshotId="snap-00000001", snapshotDays=snapshot_days)
    return record(lambda: ProxyStorage("proxy", ProxyStorageArgs(config, "prod", "aws", "eu-west-1a")))


def test_the_data_volume_has_a_snapshot_each_day() -> None:
    declared = declare("14")
    volume = declared.only("aws:ebs/volume:Volume")
    assert (volume["encrypted"], volume["size"], volume["availabilityZone"]) == (True, 30, "eu-west-1a")
    assert volume["snapshotId"] == "snap-00000001"
    policy = declared.only("aws:dlm/lifecyclePolicy:LifecyclePolicy")["policyDetails"]
    assert policy["targetTags"].items() <= volume["tags"].items()
    (schedule,) = policy["schedules"]
    assert schedule["createRule"]["interval"] == 24
    assert schedule["retainRule"]["interval"] == 14


def test_snapshot_days_0_means_no_snapshots() -> None:
    declared = declare("0")
    assert declared.only("aws:ebs/volume:Volume")
    assert not declared.has("aws:dlm/lifecyclePolicy:LifecyclePolicy")
    assert not declared.has("aws:iam/role:Role")
