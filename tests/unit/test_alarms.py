"""The alarms: what is declared, and that the host sends what they look at."""

import re

import pytest

from sandbox.engine import ROOT
from teleport_eks.alarms import ALARMS, HOST, NAMESPACE
from teleport_eks.cluster import choose_site
from teleport_eks.errors import ConfigurationError
from tests.examples import CLUSTER, PUBLIC, record_proxy, settings

TOPIC = "arn:aws:sns:eu-west-1:111122223333:on-call"
ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"


def test_the_operators_topic_hears_of_each_alarm_and_of_its_end() -> None:
    alarms = {alarm["name"]: alarm for alarm in record_proxy({"alarmTopicArn": TOPIC}).of(ALARM)}
    names = ("certificate", "disk", "instance", "proxy", "silent", "system", "units")
    assert sorted(alarms) == [f"teleport-eks/dev/{name}" for name in names]
    assert [alarm["okActions"] for alarm in alarms.values()] == [[TOPIC]] * len(names)
    actions = {name.rpartition("/")[2]: alarm["alarmActions"] for name, alarm in alarms.items()}
    assert actions.pop("system") == [TOPIC, "arn:aws:automate:eu-west-1:ec2:recover"]
    assert actions.pop("instance") == [TOPIC, "arn:aws:automate:eu-west-1:ec2:reboot"]
    assert list(actions.values()) == [[TOPIC]] * 5
    assert alarms["teleport-eks/dev/system"]["dimensions"] == {"InstanceId": "teleport-host-amd64-id"}
    assert alarms["teleport-eks/dev/proxy"]["dimensions"] == {"Stack": "dev"}


def test_only_silence_is_an_alarm_without_data_and_not_as_long_as_a_new_host_takes() -> None:
    breaching = [alarm for alarm in ALARMS if alarm.missing != "ignore"]
    assert [alarm.name for alarm in breaching] == ["silent"]
    assert breaching[0].minutes * breaching[0].periods >= settings().wait_minutes


def test_the_alarms_come_after_the_first_boot() -> None:
    needs = record_proxy({"alarmTopicArn": TOPIC}).requests["teleport-alarms"].dependencies
    # A component's parts wait for the component.
    assert "teleport-host-ready" in {urn.rpartition("::")[2] for urn in needs}


def test_the_host_sends_what_the_alarms_look_at() -> None:
    script = (ROOT / "teleport_eks/userdata/files/signals").read_text()
    assert set(re.findall(r"metric ([A-Z]\w+)", script)) == {a.metric for a in ALARMS if a.namespace == HOST}
    assert f"--namespace {NAMESPACE} " in script


def test_a_topic_in_another_region_is_refused() -> None:
    elsewhere = settings(alarmTopicArn=TOPIC.replace("eu-west-1", "us-east-1"), subnetId="subnet-00000002")
    with pytest.raises(ConfigurationError, match="write: teleport-eks:alarmTopicArn: arn:aws:sns:eu-west-1:"):
        choose_site(elsewhere, "dev", [CLUSTER], [PUBLIC], [], [])


def test_logs_go_to_one_group_that_the_host_may_write_to() -> None:
    declared = record_proxy({"logRetentionDays": "90"})
    group = declared.only("aws:cloudwatch/logGroup:LogGroup")
    assert (group["name"], group["retentionInDays"]) == ("/teleport-eks/dev", 90)
    assert declared.requests["teleport-logs"].protect
    # The host's agent may not make it.
    needs = declared.requests["teleport-host"].dependencies
    assert "teleport-logs" in {urn.rpartition("::")[2] for urn in needs}
    assert "log-group:/teleport-eks/dev:*" in declared.only("aws:iam/rolePolicy:RolePolicy")["policy"]


def test_by_default_there_is_none_of_it() -> None:
    declared = record_proxy({})
    assert not declared.has(ALARM)
    assert not declared.has("aws:cloudwatch/logGroup:LogGroup")
    policy = declared.only("aws:iam/rolePolicy:RolePolicy")["policy"]
    assert "logs:" not in policy
    assert "cloudwatch:" not in policy
