"""What the host tells CloudWatch about itself."""

import datetime
import uuid
from collections.abc import Callable

import pytest

from tests.boot.rig import ACCESS, BOOT, CERTIFICATE, Host, libfaketime

ARN = "arn:aws:sns:eu-west-1:111122223333:on-call"
GOOD = {"CertificateDays": 89, "DiskUsed": 0, "FailedUnits": 0, "ProxyAnswers": 1}


def measure(host: Host) -> dict[str, float]:
    """The metrics of one run, under a stack's name that nobody had before."""
    host.write_user_data(stack=f"s{uuid.uuid4().hex}", alarm_topic_arn=ARN)
    host.succeed("teleport-signals")
    now = datetime.datetime.now(datetime.UTC)
    hour = {"StartTime": now - datetime.timedelta(minutes=30), "EndTime": now + datetime.timedelta(minutes=30)}
    cloudwatch, found = host.world.aws("cloudwatch"), {}
    stack = [{"Name": "Stack", "Value": host.config.stack}]
    for metric in cloudwatch.list_metrics(Namespace="teleport-eks", Dimensions=stack)["Metrics"]:
        (point,) = cloudwatch.get_metric_statistics(
            **metric, **hour, Period=3600, Statistics=["Maximum", "SampleCount"]
        )["Datapoints"]
        assert point["SampleCount"] == 1
        found[metric["MetricName"]] = point["Maximum"]
    return found


def fail_access(host: Host) -> None:
    host.world.fault("aws AmazonSSM", "fail", status=400, body=b"{}")
    host.fail(ACCESS, "step access: failed")


def fail_boot(host: Host) -> None:
    host.world.fault("imds", "fail")
    host.configure(ADDRESS_WAIT="1")
    host.fail(BOOT, "step address: failed")


def remove_volume(host: Host) -> None:
    host.sh("systemctl stop teleport.service; umount /var/lib/teleport")


@pytest.fixture
def good(running: Host) -> Host:
    running.succeed(CERTIFICATE)
    running.wait_trusted()
    return running


@pytest.mark.parametrize(
    ("spoil", "changed"),
    [
        (lambda _: None, {}),
        (fail_access, {"FailedUnits": 1}),
        (fail_boot, {"FailedUnits": 1}),
        (lambda host: host.sh("systemctl stop teleport.service"), {"ProxyAnswers": 0}),
        (lambda host: host.sh("cat /dev/zero >/var/lib/teleport/full", check=False), {"DiskUsed": 100}),
        (lambda host: host.configure(LD_PRELOAD=libfaketime(), FAKETIME="+80d"), {"CertificateDays": 9}),
        (lambda host: host.sh("rm -r /var/lib/teleport/tls"), {"CertificateDays": 0}),
        (remove_volume, {"CertificateDays": 0, "DiskUsed": 100, "ProxyAnswers": 0}),
    ],
    ids=[
        "nothing",
        "a unit",
        "a unit that is restarted",
        "the proxy",
        "the disk",
        "an old certificate",
        "no certificate",
        "no volume",
    ],
)
def test_what_is_bad_shows(good: Host, spoil: Callable[[Host], object], changed: dict[str, float]) -> None:
    spoil(good)
    found = measure(good)
    found["DiskUsed"] -= found["DiskUsed"] % 50  # a new volume is not quite empty
    assert found == {**GOOD, **changed}


def test_a_self_signed_certificate_has_no_days_left(running: Host) -> None:
    assert measure(running)["CertificateDays"] == 0


def test_a_refusal_of_cloudwatch_fails_the_unit(running: Host) -> None:
    running.write_user_data(alarm_topic_arn=ARN)
    running.world.fault("aws .*PutMetricData|aws POST /", "fail", status=403)
    running.fail("teleport-signals", "step signals: failed: aws cloudwatch put-metric-data")
