"""The recordings on the data volume, when the stack keeps them in a bucket from now on."""

import pytest

from tests.boot.rig import BOOT, Host

RECORDS = "/var/lib/teleport/log/records"
COPY = "teleport-recordings"


def bucket(host: Host) -> str:
    return f"recordings-{host.name}"


@pytest.fixture
def host(running: Host) -> Host:
    """A proxy with two recordings, whose user data has changed to a bucket that is there."""
    running.sh(f"mkdir -p {RECORDS}/multi/upload && cd {RECORDS} && echo one >one.tar && echo two >two.tar")
    place = {"LocationConstraint": running.config.region}
    running.world.aws("s3").create_bucket(Bucket=bucket(running), CreateBucketConfiguration=place)
    running.write_user_data(recordings_url=f"s3://{bucket(running)}/records")
    running.reboot()
    return running


def copied(host: Host) -> set[str]:
    found = host.world.aws("s3").list_objects_v2(Bucket=bucket(host)).get("Contents", [])
    return {item["Key"] for item in found}


def test_they_are_copied_once_and_stay_on_the_volume(host: Host) -> None:
    host.world.fault("aws PUT /recordings.*two.tar", "fail", status=403)
    host.succeed(BOOT)
    # Teleport does not wait for it.
    assert f"{COPY}.service" in host.sh("cat /run/rig/queued")
    host.fail(COPY, f"failed: aws s3 sync to s3://{bucket(host)}/records")
    assert copied(host) == {"records/one.tar"}

    host.world.clear()
    host.succeed(COPY)
    assert copied(host) == {"records/one.tar", "records/two.tar"}
    assert len(host.world.asked("PUT")) == 1, "one.tar was there already"
    assert host.sh(f"cat {RECORDS}/one.tar {RECORDS}/two.tar") == "one\ntwo"

    # What expires does not come back; what was recorded on the volume meanwhile, because the stack went back, comes.
    host.world.aws("s3").delete_object(Bucket=bucket(host), Key="records/one.tar")
    host.sh(f"echo three >{RECORDS}/three.tar")
    host.succeed(COPY)
    assert copied(host) == {"records/two.tar", "records/three.tar"}
    host.world.requests.clear()
    host.succeed(COPY)
    assert host.world.asked(bucket(host)) == []


def test_back_on_the_volume_nothing_is_copied(host: Host) -> None:
    """With updates in place, the unit is still there."""
    host.write_user_data(recordings_url=None)
    host.succeed(BOOT)
    host.world.requests.clear()
    assert host.succeed(COPY).console == ""
    assert host.world.asked(bucket(host)) == []
