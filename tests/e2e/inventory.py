"""What an emulated account holds."""

import base64
import gzip

from sandbox.account import Account


def instances(account: Account) -> list[dict]:
    reservations = account.client("ec2").describe_instances()["Reservations"]
    return [instance for reservation in reservations for instance in reservation["Instances"]]


def user_data(account: Account, instance_id: str) -> str:
    attribute = account.client("ec2").describe_instance_attribute(InstanceId=instance_id, Attribute="userData")
    data = base64.b64decode(attribute["UserData"]["Value"])
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    assert text.startswith("#cloud-config"), text[:100]
    return text


def parameters(account: Account) -> dict[str, dict]:
    found = account.client("ssm").get_parameters_by_path(Path="/teleport-eks/dev", Recursive=True, WithDecryption=True)
    return {p["Name"].removeprefix("/teleport-eks/dev/"): p for p in found["Parameters"]}


def made(account: Account) -> dict[str, int]:
    """How many of the things that the program makes are in the account."""
    ec2 = account.client("ec2")
    return {
        "instances": len([i for i in instances(account) if i["State"]["Name"] != "terminated"]),
        "addresses": len(ec2.describe_addresses()["Addresses"]),
        "volumes": len(ec2.describe_volumes()["Volumes"]),
        "roles": len(account.client("iam").list_roles()["Roles"]),
        "parameters": len(parameters(account)),
        "alarms": len(account.client("cloudwatch").describe_alarms()["MetricAlarms"]),
        "log groups": len(account.client("logs").describe_log_groups()["logGroups"]),
        "buckets": len(account.client("s3").list_buckets()["Buckets"]),
    }
