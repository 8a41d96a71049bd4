"""The AWS resources and functions of the program, as calls to the emulated account.

moto has no access entries and no snapshot policies: of those, the parts are checked, and the state is all there is.
"""

import base64
import functools
import json
import os
from collections.abc import Callable
from typing import Any

import boto3
from botocore.exceptions import ClientError

from sandbox.providers.server import Kind, Props, Provider
from sandbox.providers.server import serve as serve_provider

CALLS = "SANDBOX_AWS_CALLS"  # names a file that each call is written to, for the tests of the pipeline's permissions


@functools.cache
def client(service: str) -> Any:
    # Never the real AWS: without an emulator there is an error.
    made = boto3.client(service, endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    if log := os.environ.get(CALLS):

        def write_down(params: dict, model: Any, **_: Any) -> None:
            with open(log, "a") as file:
                action = f"{model.service_model.signing_name}:{model.name}"
                file.write(json.dumps([action, params], default=repr) + "\n")

        made.meta.events.register("provide-client-params", write_down)
    return made


class _Service:
    """``ec2.allocate_address(...)`` and so on; the client is made when it is first needed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, call: str) -> Callable[..., Any]:
        return getattr(client(self.name), call)


ec2, eks, iam, route53, ssm = map(_Service, ("ec2", "eks", "iam", "route53", "ssm"))


def camel(answer: Any) -> Any:
    """An answer of AWS's with the provider's names: ``VpcId`` is ``vpcId``, and tags are a map."""
    if isinstance(answer, list):
        return [camel(item) for item in answer]
    if not isinstance(answer, dict):
        return answer
    tags = {"Tags": {tag["Key"]: tag["Value"] for tag in answer["Tags"]}} if "Tags" in answer else {}
    return {
        key[0].lower() + key[1:]: camel(value) if key != "Tags" else value for key, value in {**answer, **tags}.items()
    }


def pick(answer: Any, *names: str, **renamed: str) -> Props:
    """Some properties of an answer, by their own names or as ``new=old``."""
    found = camel(answer)
    return {new: found[old] for new, old in {**dict(zip(names, names, strict=True)), **renamed}.items() if old in found}


def present(**arguments: Any) -> Props:
    """The arguments of a call that have a value."""
    return {key: value for key, value in arguments.items() if value is not None}


def key_values(tags: Props) -> list[dict]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tagged(kind: str, props: Props) -> Props:
    tags = key_values(props.get("tags", {}))
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": tags}]} if tags else {}


def retag(resource_id: str, old: Props, new: Props) -> None:
    before, after = old.get("tags") or {}, new.get("tags") or {}
    if gone := [{"Key": key} for key in before if key not in after]:
        ec2.delete_tags(Resources=[resource_id], Tags=gone)
    if after and after != before:
        ec2.create_tags(Resources=[resource_id], Tags=key_values(after))


def changed(old: Props, new: Props, *names: str) -> bool:
    return any(old.get(name) != new.get(name) for name in names)


# ------------------------------------------------------------------------------------------------------- the firewall


def create_group(props: Props) -> str:
    arguments = {"GroupName": props["name"], "Description": props["description"], "VpcId": props["vpcId"]}
    group = ec2.create_security_group(**arguments, **tagged("security-group", props))["GroupId"]
    # As the real provider does: what may leave is what the program says.
    ec2.revoke_security_group_egress(
        GroupId=group, IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    )
    return group


def rule_kind(direction: str) -> Kind:
    def create(props: Props) -> str:
        described = present(Description=props.get("description"))
        if "cidrIpv4" in props:
            audience: Props = {"IpRanges": [{"CidrIp": props["cidrIpv4"], **described}]}
        else:
            audience = {"UserIdGroupPairs": [{"GroupId": props["referencedSecurityGroupId"], **described}]}
        ports = present(FromPort=props.get("fromPort"), ToPort=props.get("toPort"))
        permission = {"IpProtocol": props["ipProtocol"], **ports, **audience}
        authorize = getattr(ec2, f"authorize_security_group_{direction}")
        made = authorize(GroupId=props["securityGroupId"], IpPermissions=[permission])
        return made["SecurityGroupRules"][0]["SecurityGroupRuleId"]

    def read(rule_id: str, _props: Props) -> Props | None:
        rules = ec2.describe_security_group_rules(SecurityGroupRuleIds=[rule_id])["SecurityGroupRules"]
        if not rules:
            return None
        rule = {k: v for k, v in rules[0].items() if v not in (-1, None)}
        referenced = rule.get("ReferencedGroupInfo", {}).get("GroupId")
        return {
            **pick(rule, "ipProtocol", "fromPort", "toPort", "cidrIpv4", "description", securityGroupId="groupId"),
            **present(referencedSecurityGroupId=referenced),
        }

    def delete(rule_id: str, props: Props) -> None:
        revoke = getattr(ec2, f"revoke_security_group_{direction}")
        revoke(GroupId=props["securityGroupId"], SecurityGroupRuleIds=[rule_id])

    def update(rule_id: str, _old: Props, new: Props) -> None:
        rule = present(
            IpProtocol=new["ipProtocol"],
            FromPort=new.get("fromPort"),
            ToPort=new.get("toPort"),
            CidrIpv4=new.get("cidrIpv4"),
            ReferencedGroupId=new.get("referencedSecurityGroupId"),
            Description=new.get("description"),
        )
        rules = [{"SecurityGroupRuleId": rule_id, "SecurityGroupRule": rule}]
        ec2.modify_security_group_rules(GroupId=new["securityGroupId"], SecurityGroupRules=rules)

    return Kind(create, read, delete, update, replaces=("securityGroupId",))


# ----------------------------------------------------------------------------------------------------------- the host


def create_instance(props: Props) -> str:
    metadata, root = props["metadataOptions"], props["rootBlockDevice"]
    disk = {"Encrypted": root["encrypted"], "VolumeType": root["volumeType"], "VolumeSize": root["volumeSize"]}
    made = ec2.run_instances(
        ImageId=props["ami"],
        MinCount=1,
        MaxCount=1,
        InstanceType=props["instanceType"],
        SubnetId=props["subnetId"],
        SecurityGroupIds=props["vpcSecurityGroupIds"],
        IamInstanceProfile={"Name": props["iamInstanceProfile"]},
        UserData=base64.b64decode(props["userDataBase64"]),  # boto3 encodes it
        MetadataOptions={
            "HttpEndpoint": metadata["httpEndpoint"],
            "HttpTokens": metadata["httpTokens"],
            "HttpPutResponseHopLimit": metadata["httpPutResponseHopLimit"],
        },
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": disk}],
        **tagged("instance", props),
    )
    return made["Instances"][0]["InstanceId"]


def read_instance(instance_id: str, _props: Props) -> Props | None:
    found = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    if found["State"]["Name"] in ("shutting-down", "terminated"):
        return None
    data = ec2.describe_instance_attribute(InstanceId=instance_id, Attribute="userData")["UserData"]
    return {
        **pick(found, "instanceType", "subnetId", "privateIp", "publicIp", "tags", ami="imageId"),
        "availabilityZone": found["Placement"]["AvailabilityZone"],
        "vpcSecurityGroupIds": [group["GroupId"] for group in found["SecurityGroups"]],
        "iamInstanceProfile": found["IamInstanceProfile"]["Arn"].rpartition("/")[2],
        "userDataBase64": data.get("Value", ""),
    }


def update_instance(instance_id: str, old: Props, new: Props) -> None:
    retag(instance_id, old, new)
    if changed(old, new, "vpcSecurityGroupIds"):
        ec2.modify_instance_attribute(InstanceId=instance_id, Groups=new["vpcSecurityGroupIds"])
    if changed(old, new, "userDataBase64", "instanceType"):
        ec2.stop_instances(InstanceIds=[instance_id])
        if changed(old, new, "instanceType"):
            ec2.modify_instance_attribute(InstanceId=instance_id, InstanceType={"Value": new["instanceType"]})
        if changed(old, new, "userDataBase64"):
            data = base64.b64decode(new["userDataBase64"])
            ec2.modify_instance_attribute(InstanceId=instance_id, UserData={"Value": data})
        ec2.start_instances(InstanceIds=[instance_id])


def create_volume(props: Props) -> str:
    arguments = present(
        AvailabilityZone=props["availabilityZone"],
        Size=props.get("size"),
        SnapshotId=props.get("snapshotId"),
        VolumeType=props.get("type"),
        Encrypted=props.get("encrypted"),
    )
    return ec2.create_volume(**arguments, **tagged("volume", props))["VolumeId"]


def update_volume(volume_id: str, old: Props, new: Props) -> None:
    retag(volume_id, old, new)
    if changed(old, new, "size", "type"):
        ec2.modify_volume(VolumeId=volume_id, Size=new["size"], VolumeType=new["type"])


def attach(props: Props) -> str:
    volume, instance = props["volumeId"], props["instanceId"]
    ec2.attach_volume(Device=props["deviceName"], InstanceId=instance, VolumeId=volume)
    return f"vai-{volume}-{instance}"


def read_attachment(_id: str, props: Props) -> Props | None:
    volume = ec2.describe_volumes(VolumeIds=[props["volumeId"]])["Volumes"][0]
    attached = [a for a in volume["Attachments"] if a["InstanceId"] == props["instanceId"]]
    return pick(attached[0], "instanceId", "volumeId", deviceName="device") if attached else None


def detach(_id: str, props: Props) -> None:
    if props.get("stopInstanceBeforeDetaching"):
        ec2.stop_instances(InstanceIds=[props["instanceId"]])
    ec2.detach_volume(Device=props["deviceName"], InstanceId=props["instanceId"], VolumeId=props["volumeId"])


def associate(props: Props) -> str:
    names = {"AllocationId": props["allocationId"], "InstanceId": props["instanceId"]}
    return ec2.associate_address(**names, AllowReassociation=props.get("allowReassociation", False))["AssociationId"]


def read_association(association_id: str, _props: Props) -> Props | None:
    filters = [{"Name": "association-id", "Values": [association_id]}]
    found = ec2.describe_addresses(Filters=filters)["Addresses"]
    return pick(found[0], "allocationId", "instanceId", "publicIp") if found else None


# ---------------------------------------------------------------------------------------------------------------- IAM


def create_role(props: Props) -> str:
    arguments = present(
        AssumeRolePolicyDocument=props["assumeRolePolicy"],
        MaxSessionDuration=props.get("maxSessionDuration"),
        Tags=key_values(props["tags"]) if "tags" in props else None,
    )
    return iam.create_role(RoleName=props["name"], **arguments)["Role"]["RoleName"]


def read_role(name: str, _props: Props) -> Props:
    role = iam.get_role(RoleName=name)["Role"]
    trust = json.dumps(role["AssumeRolePolicyDocument"])
    kept = pick(role, "arn", "maxSessionDuration", "tags", name="roleName", uniqueId="roleId")
    return {**kept, "assumeRolePolicy": trust}


def put_role_policy(props: Props) -> str:
    iam.put_role_policy(RoleName=props["role"], PolicyName=props["name"], PolicyDocument=props["policy"])
    return f"{props['role']}:{props['name']}"


def read_role_policy(policy_id: str, _props: Props) -> Props:
    role, _, name = policy_id.partition(":")
    found = iam.get_role_policy(RoleName=role, PolicyName=name)
    return {"role": role, "name": name, "policy": json.dumps(found["PolicyDocument"])}


def attach_role_policy(props: Props) -> str:
    iam.attach_role_policy(RoleName=props["role"], PolicyArn=props["policyArn"])
    return f"{props['role']}/{props['policyArn']}"


def read_role_policy_attachment(attachment_id: str, _props: Props) -> Props | None:
    role, _, arn = attachment_id.partition("/")
    attached = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    return {"role": role, "policyArn": arn} if any(policy["PolicyArn"] == arn for policy in attached) else None


def create_profile(props: Props) -> str:
    iam.create_instance_profile(InstanceProfileName=props["name"])
    iam.add_role_to_instance_profile(InstanceProfileName=props["name"], RoleName=props["role"])
    return props["name"]


def read_profile(name: str, _props: Props) -> Props:
    profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    roles = [role["RoleName"] for role in profile["Roles"]]
    return {"name": name, "arn": profile["Arn"], "role": (roles or [""])[0]}


def update_profile(name: str, old: Props, new: Props) -> None:
    iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=old["role"])
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=new["role"])


def delete_profile(name: str, props: Props) -> None:
    iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=props["role"])
    iam.delete_instance_profile(InstanceProfileName=name)


# ------------------------------------------------------------------------------------------------- parameters, records


def put_parameter(props: Props, *, overwrite: bool = False) -> str:
    arguments = present(Name=props["name"], Value=props["value"], Type=props["type"], Tier=props.get("tier"))
    ssm.put_parameter(**arguments, Overwrite=overwrite)
    return props["name"]


def read_parameter(name: str, _props: Props) -> Props:
    found = ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]
    return pick(found, "name", "type", "value", "version", arn="aRN")


def write_record(action: str, props: Props) -> str:
    record = {
        "Name": props["name"],
        "Type": props["type"],
        "TTL": props["ttl"],
        "ResourceRecords": [{"Value": value} for value in props["records"]],
    }
    changes = [{"Action": action, "ResourceRecordSet": record}]
    route53.change_resource_record_sets(HostedZoneId=props["zoneId"], ChangeBatch={"Changes": changes})
    return f"{props['zoneId']}_{props['name']}_{props['type']}"


def read_record(record_id: str, _props: Props) -> Props | None:
    zone, name, kind = record_id.split("_")
    for record in route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]:
        if record["Name"].rstrip(".") == name and record["Type"] == kind:
            values = [value["Value"] for value in record["ResourceRecords"]]
            return {"zoneId": zone, "name": name, "type": kind, "ttl": record["TTL"], "records": values, "fqdn": name}
    return None


# ---------------------------------------------------------------------------------------------- what moto does not have


def create_access_entry(props: Props) -> str:
    eks.describe_cluster(name=props["clusterName"])
    iam.get_role(RoleName=props["principalArn"].rpartition("/")[2])
    return f"{props['clusterName']}:{props['principalArn']}"


def create_lifecycle_policy(props: Props) -> str:
    iam.get_role(RoleName=props["executionRoleArn"].rpartition("/")[2])
    return f"policy-{props['executionRoleArn'].rpartition('/')[2]}"


def nothing(_id: str, _old: Props, _new: Props) -> None:
    """The state is all there is."""


KINDS = {
    "aws:ec2/eip:Eip": Kind(
        lambda p: ec2.allocate_address(Domain=p["domain"], **tagged("elastic-ip", p))["AllocationId"],
        lambda i, _: pick(
            ec2.describe_addresses(AllocationIds=[i])["Addresses"][0], "domain", "allocationId", "publicIp", "tags"
        ),
        lambda i, _: ec2.release_address(AllocationId=i),
        retag,
        replaces=("domain",),
        computed=("allocationId", "publicIp"),
    ),
    "aws:ec2/eipAssociation:EipAssociation": Kind(
        associate,
        read_association,
        lambda i, _: ec2.disassociate_address(AssociationId=i),
        nothing,  # allowReassociation
        replaces=("allocationId", "instanceId"),
        computed=("publicIp",),
    ),
    "aws:ec2/securityGroup:SecurityGroup": Kind(
        create_group,
        lambda i, _: pick(
            ec2.describe_security_groups(GroupIds=[i])["SecurityGroups"][0],
            *("description", "vpcId", "tags"),
            name="groupName",
        ),
        lambda i, _: ec2.delete_security_group(GroupId=i),
        retag,
        replaces=("name", "description", "vpcId"),
        named=True,
    ),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": rule_kind("ingress"),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": rule_kind("egress"),
    "aws:iam/role:Role": Kind(
        create_role,
        read_role,
        lambda i, _: iam.delete_role(RoleName=i),
        lambda i, _, p: iam.update_assume_role_policy(RoleName=i, PolicyDocument=p["assumeRolePolicy"]),
        replaces=("name",),
        computed=("arn", "uniqueId"),
        named=True,
    ),
    "aws:iam/rolePolicy:RolePolicy": Kind(
        put_role_policy,
        read_role_policy,
        lambda _, p: iam.delete_role_policy(RoleName=p["role"], PolicyName=p["name"]),
        lambda _id, _old, p: put_role_policy(p),
        replaces=("name", "role"),
        named=True,
    ),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": Kind(
        attach_role_policy,
        read_role_policy_attachment,
        lambda _, p: iam.detach_role_policy(RoleName=p["role"], PolicyArn=p["policyArn"]),
    ),
    "aws:iam/instanceProfile:InstanceProfile": Kind(
        create_profile,
        read_profile,
        delete_profile,
        update_profile,
        replaces=("name",),
        computed=("arn",),
        named=True,
    ),
    "aws:ebs/volume:Volume": Kind(
        create_volume,
        lambda i, _: pick(
            ec2.describe_volumes(VolumeIds=[i])["Volumes"][0],
            *("availabilityZone", "size", "snapshotId", "encrypted", "tags"),
            type="volumeType",
        ),
        lambda i, _: ec2.delete_volume(VolumeId=i),
        update_volume,
        replaces=("availabilityZone", "snapshotId", "encrypted", "kmsKeyId"),
    ),
    "aws:ec2/instance:Instance": Kind(
        create_instance,
        read_instance,
        lambda i, _: ec2.terminate_instances(InstanceIds=[i]),
        update_instance,
        replaces=("ami", "subnetId", "availabilityZone", "rootBlockDevice.encrypted"),
        replaces_if=lambda new: ("userDataBase64",) if new.get("userDataReplaceOnChange") else (),
        computed=("privateIp", "publicIp", "availabilityZone"),
    ),
    "aws:ec2/volumeAttachment:VolumeAttachment": Kind(
        attach,
        read_attachment,
        detach,
        nothing,  # stopInstanceBeforeDetaching
        replaces=("deviceName", "instanceId", "volumeId"),
    ),
    "aws:ssm/parameter:Parameter": Kind(
        put_parameter,
        read_parameter,
        lambda i, _: ssm.delete_parameter(Name=i),
        lambda _id, _old, p: put_parameter(p, overwrite=True),
        replaces=("name",),
        computed=("arn", "version"),
        secret=("value",),
    ),
    "aws:route53/record:Record": Kind(
        lambda p: write_record("CREATE", p),
        read_record,
        lambda _, p: write_record("DELETE", p),
        lambda _id, _old, p: write_record("UPSERT", p),
        replaces=("zoneId", "name", "type"),
        computed=("fqdn",),
    ),
    "aws:eks/accessEntry:AccessEntry": Kind(
        create_access_entry, lambda _, p: p, update=nothing, replaces=("clusterName", "principalArn", "type")
    ),
    "aws:dlm/lifecyclePolicy:LifecyclePolicy": Kind(create_lifecycle_policy, lambda _, p: p, update=nothing),
}


# -------------------------------------------------------------------------------------------------------- the look-ups


def get_cluster(args: Props) -> Props:
    cluster = eks.describe_cluster(name=args["name"])["cluster"]
    return {
        **{key: cluster[key] for key in ("name", "arn", "endpoint")},
        "id": cluster["name"],
        "certificateAuthorities": [cluster["certificateAuthority"]],
        "vpcConfig": cluster["resourcesVpcConfig"],
        "accessConfigs": [cluster["accessConfig"]] if "accessConfig" in cluster else [],
    }


def get_subnets(args: Props) -> Props:
    filters = [{"Name": f["name"], "Values": f["values"]} for f in args["filters"]]
    return {"id": "all", "ids": [subnet["SubnetId"] for subnet in ec2.describe_subnets(Filters=filters)["Subnets"]]}


def get_subnet(args: Props) -> Props:
    subnet = {"Tags": [], **ec2.describe_subnets(SubnetIds=[args["id"]])["Subnets"][0]}
    return pick(subnet, "vpcId", "cidrBlock", "availabilityZone", "mapPublicIpOnLaunch", "tags", id="subnetId")


def get_parameter(args: Props) -> Props:
    found = ssm.get_parameter(Name=args["name"], WithDecryption=True)["Parameter"]
    plain = {"insecureValue": found["Value"]} if found["Type"] != "SecureString" else {}
    return {"id": args["name"], **pick(found, "name", "type", "value", "version"), **plain}


def get_zone(args: Props) -> Props:
    zones = route53.list_hosted_zones()["HostedZones"]
    found = [zone["Id"].rpartition("/")[2] for zone in zones if zone["Name"].rstrip(".") == args["name"].rstrip(".")]
    if len(found) != 1:
        raise LookupError(f"{len(found)} Route 53 zones are called {args['name']}")
    return {"id": found[0], "zoneId": found[0], "name": args["name"], "arn": f"arn:aws:route53:::hostedzone/{found[0]}"}


FUNCTIONS = {
    "aws:eks/getCluster:getCluster": get_cluster,
    "aws:eks/getClusters:getClusters": lambda _: {"id": "all", "names": eks.list_clusters()["clusters"]},
    "aws:ec2/getSubnets:getSubnets": get_subnets,
    "aws:ec2/getSubnet:getSubnet": get_subnet,
    "aws:ssm/getParameter:getParameter": get_parameter,
    "aws:route53/getZone:getZone": get_zone,
}


def is_gone(error: Exception) -> bool:
    code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
    return "NotFound" in code or "NoSuch" in code


def serve(server: Any) -> None:
    os.environ.setdefault("AWS_REGION", "eu-west-1")

    def configure(config: Props) -> None:
        if region := config.get("region"):
            os.environ["AWS_REGION"] = os.environ["AWS_DEFAULT_REGION"] = region

    serve_provider(
        server, Provider("pulumi_aws", KINDS, FUNCTIONS, configure=configure, errors=(ClientError,), is_gone=is_gone)
    )
