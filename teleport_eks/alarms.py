"""What the operator is told about: CloudWatch alarms, to a topic of the operator's own."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

NAMESPACE = "teleport-eks"  # of the metrics that teleport_eks/userdata/files/signals sends each minute
HOST, EC2 = NAMESPACE, "AWS/EC2"
AT_LEAST, BELOW = "GreaterThanOrEqualToThreshold", "LessThanThreshold"


@dataclass(frozen=True)
class Alarm:
    """Goes off if all of the last ``periods``, each of ``minutes``, are bad. ``action`` is what EC2 then does."""

    name: str
    says: str
    namespace: str
    metric: str
    is_bad: str
    threshold: int
    minutes: int
    periods: int
    statistic: str = "Maximum"
    # While an instance is replaced there are no metrics, and the alarm stays as it is. Only "silent" reads this as
    # trouble, after 15 minutes, which is more than a new host takes.
    missing: str = "ignore"
    action: str = ""
    # With one host, with several, or with both. The Auto Scaling group of several does what EC2's alarms would do.
    hosts: str = "any"


ALARMS = (
    Alarm(
        "system",
        "AWS's hardware below the instance has a fault. EC2 moves the instance to other hardware.",
        *(EC2, "StatusCheckFailed_System", AT_LEAST, 1, 1, 2),
        action="recover",
        hosts="one",
    ),
    # Nobody can reach the host then, so a reboot ends no work. One period more than AWS's own fault, as AWS advises.
    Alarm(
        "instance",
        "The instance does not answer EC2. EC2 reboots it.",
        *(EC2, "StatusCheckFailed_Instance", AT_LEAST, 1, 1, 3),
        action="reboot",
        hosts="one",
    ),
    Alarm(
        "silent",
        "No host has sent metrics for 15 minutes: it is down, or its boot did not finish.",
        *(HOST, "ProxyAnswers", BELOW, 1, 5, 3),
        statistic="SampleCount",
        missing="breaching",
    ),
    Alarm("proxy", "The proxy answers on no host.", HOST, "ProxyAnswers", BELOW, 1, 1, 5),
    # A host answers 5 times in 5 minutes, and one more at most.
    Alarm(
        "hosts",
        "Only one host answers, and for 15 minutes Auto Scaling has not replaced the other.",
        *(HOST, "ProxyAnswers", BELOW, 7, 5, 3),
        statistic="Sum",
        hosts="several",
    ),
    # Periods of 5 minutes, because a unit that fails is running again at times.
    Alarm("units", "A unit of a host keeps failing.", HOST, "FailedUnits", AT_LEAST, 1, 5, 3),
    Alarm(
        "disk",
        "The disk with Teleport's data is 85% full. A full one refuses sessions.",
        *(HOST, "DiskUsed", AT_LEAST, 85, 5, 3),
    ),
    # certbot renews when 30 days are left. Of several hosts, the worst counts.
    Alarm(
        "certificate",
        "The certificate has less than 14 days left.",
        *(HOST, "CertificateDays", BELOW, 14, 5, 3),
        statistic="Minimum",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class ProxyAlarmsArgs:
    topic_arn: str
    stack: str
    partition: str
    region: str
    instance_id: pulumi.Input[str] | None  # None: several hosts


class ProxyAlarms(pulumi.ComponentResource):
    """Owns the alarms. The topic is the operator's."""

    def __init__(self, name: str, args: ProxyAlarmsArgs, *, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("teleport-eks:index:ProxyAlarms", name, None, opts)
        for alarm in ALARMS:
            if alarm.hosts == ("one" if args.instance_id is None else "several"):
                continue
            instance_id = args.instance_id if alarm.namespace == EC2 else None
            ec2_does = [f"arn:{args.partition}:automate:{args.region}:ec2:{alarm.action}"] if alarm.action else []
            aws.cloudwatch.MetricAlarm(
                f"{name}-{alarm.name}",
                # The name is what people read in the message, so it has no random end.
                name=f"{NAMESPACE}/{args.stack}/{alarm.name}",
                alarm_description=f"{alarm.says} See docs/operations.md#alarms.",
                namespace=alarm.namespace,
                metric_name=alarm.metric,
                dimensions={"InstanceId": instance_id} if instance_id else {"Stack": args.stack},
                statistic=alarm.statistic,
                comparison_operator=alarm.is_bad,
                threshold=alarm.threshold,
                period=alarm.minutes * 60,
                evaluation_periods=alarm.periods,
                treat_missing_data=alarm.missing,
                alarm_actions=[args.topic_arn, *ec2_does],
                ok_actions=[args.topic_arn],
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({})
