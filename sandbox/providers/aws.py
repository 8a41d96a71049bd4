"""The AWS resources and functions of the program, as calls to the emulated account.

To add one, add it to KINDS or FUNCTIONS. Which properties there are is written as ``name=GroupName vpcId``: the
provider's name, and AWS's if that is another than the same with a capital.

moto has no access entries and no snapshot policies: of those the parts are checked, and the state is all there is.
"""

import base64
import functools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import boto3
from botocore.exceptions import ClientError

from sandbox.providers import server
from sandbox.providers.server import Kind, Props

CALLS = "SANDBOX_AWS_CALLS"  # names a file that each call is written to, for the test of the pipeline's permissions


class Service:
    """A client that is made when it is first needed; never of the real AWS, so there must be an endpoint."""

    def __init__(self, name: str) -> None:
        self.name = name

    @functools.cached_property
    def client(self) -> Any:
        client = boto3.client(self.name, endpoint_url=os.environ["AWS_ENDPOINT_URL"])
        if CALLS in os.environ:
            client.meta.events.register("provide-client-params", self.write_down)
        return client

    def write_down(self, params: Props, model: Any, **_: Any) -> None:
        with open(os.environ[CALLS], "a") as file:
            file.write(json.dumps([f"{self.name}:{model.name}", params], default=repr) + "\n")

    def __getattr__(self, call: str) -> Any:
        return getattr(self.client, call)


ec2, eks, iam, route53, ssm = map(Service, ("ec2", "eks", "iam", "route53", "ssm"))


def fields(spec: str) -> Iterator[tuple[str, str]]:
    for word in spec.split():
        name, _, there = word.partition("=")
        yield name, there or name[0].upper() + name[1:]


def send(props: Props, spec: str) -> Props:
    """The arguments of a call for those properties that are set."""
    return {there: props[name] for name, there in fields(spec) if name in props}


def take(answer: Props, spec: str) -> Props:
    """The properties that an answer has; documents are text, and tags are a map."""
    found = {name: answer[there] for name, there in fields(spec) if there in answer}
    found = {name: json.dumps(v) if name.lower().endswith("policy") else v for name, v in found.items()}
    return {**found, "tags": {t["Key"]: t["Value"] for t in answer["Tags"]}} if "Tags" in answer else found


def tag_list(tags: Props) -> list[dict]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tagged(kind: str, props: Props) -> Props:
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": tag_list(props["tags"])}]} if "tags" in props else {}


def retag(resource_id: str, old: Props, new: Props) -> None:
    before, after = old.get("tags", {}), new.get("tags", {})
    if gone := [{"Key": key} for key in before if key not in after]:
        ec2.delete_tags(Resources=[resource_id], Tags=gone)
    if after != before:
        ec2.create_tags(Resources=[resource_id], Tags=tag_list(after))


def tagged_kind(noun: str, key: str, spec: str, computed: str = "", **kind: Any) -> Kind:
    """A resource of EC2 that is created, described and deleted by calls of one pattern, and has tags."""
    call, describe, delete, tag = noun.split()
    plural = "".join(word.capitalize() for word in describe.removeprefix("describe_").split("_"))

    def read(resource_id: str, _props: Props) -> Props:
        return take(getattr(ec2, describe)(**{f"{key}s": [resource_id]})[plural][0], f"{spec} {computed}")

    return Kind(
        **{"update": retag, "computed": tuple(computed.split()), **kind},
        create=lambda props: getattr(ec2, call)(**send(props, spec), **tagged(tag, props))[key],
        read=read,
        delete=lambda resource_id, _: getattr(ec2, delete)(**{key: resource_id}),
    )


def create_group(props: Props) -> str:
    group = GROUP.create(props)
    # As the real provider does: what may leave is what the program says.
    everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[everything])
    return group


def rule_kind(direction: str) -> Kind:
    spec = "ipProtocol fromPort toPort cidrIpv4 description referencedSecurityGroupId=ReferencedGroupId"

    def create(props: Props) -> str:
        audience = {
            "IpRanges": [{**send(props, "cidrIpv4=CidrIp description")}] if "cidrIpv4" in props else [],
            "UserIdGroupPairs": [{**send(props, "referencedSecurityGroupId=GroupId description")}],
        }
        audience.pop("UserIdGroupPairs" if "cidrIpv4" in props else "IpRanges")
        permission = {**send(props, "ipProtocol fromPort toPort"), **audience}
        authorize = getattr(ec2, f"authorize_security_group_{direction}")
        made = authorize(GroupId=props["securityGroupId"], IpPermissions=[permission])
        return made["SecurityGroupRules"][0]["SecurityGroupRuleId"]

    def read(rule_id: str, _props: Props) -> Props:
        found = ec2.describe_security_group_rules(SecurityGroupRuleIds=[rule_id])["SecurityGroupRules"][0]
        found |= {"ReferencedGroupId": found.get("ReferencedGroupInfo", {}).get("GroupId")}
        return take({k: v for k, v in found.items() if v not in (-1, None)}, f"{spec} securityGroupId=GroupId")

    def update(rule_id: str, _old: Props, new: Props) -> None:
        rule = {"SecurityGroupRuleId": rule_id, "SecurityGroupRule": send(new, spec)}
        ec2.modify_security_group_rules(GroupId=new["securityGroupId"], SecurityGroupRules=[rule])

    def delete(rule_id: str, props: Props) -> None:
        revoke = getattr(ec2, f"revoke_security_group_{direction}")
        revoke(GroupId=props["securityGroupId"], SecurityGroupRuleIds=[rule_id])

    return Kind(create, read, delete, update, replaces=("securityGroupId",))


def create_instance(props: Props) -> str:
    disk = send(props["rootBlockDevice"], "encrypted volumeType volumeSize") | {"DeleteOnTermination": True}
    made = ec2.run_instances(
        **send(props, "ami=ImageId instanceType subnetId vpcSecurityGroupIds=SecurityGroupIds"),
        MinCount=1,
        MaxCount=1,
        IamInstanceProfile={"Name": props["iamInstanceProfile"]},
        UserData=base64.b64decode(props["userDataBase64"]),  # boto3 encodes it
        MetadataOptions=send(props["metadataOptions"], "httpEndpoint httpTokens httpPutResponseHopLimit"),
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
        **take(found, "ami=ImageId instanceType subnetId"),
        "vpcSecurityGroupIds": [group["GroupId"] for group in found["SecurityGroups"]],
        "iamInstanceProfile": found["IamInstanceProfile"]["Arn"].rpartition("/")[2],
        "userDataBase64": data.get("Value", ""),
    }


def update_instance(instance_id: str, old: Props, new: Props) -> None:
    def modify(**attribute: Any) -> None:
        ec2.modify_instance_attribute(InstanceId=instance_id, **attribute)

    retag(instance_id, old, new)
    if new["vpcSecurityGroupIds"] != old["vpcSecurityGroupIds"]:
        modify(Groups=new["vpcSecurityGroupIds"])
    if any(new[key] != old[key] for key in ("userDataBase64", "instanceType")):
        ec2.stop_instances(InstanceIds=[instance_id])
        modify(InstanceType={"Value": new["instanceType"]})
        modify(UserData={"Value": base64.b64decode(new["userDataBase64"])})
        ec2.start_instances(InstanceIds=[instance_id])


def update_volume(volume_id: str, old: Props, new: Props) -> None:
    retag(volume_id, old, new)
    if new["size"] != old["size"]:
        ec2.modify_volume(VolumeId=volume_id, Size=new["size"])


ATTACHMENT = "deviceName=Device instanceId volumeId"


def attach(props: Props) -> str:
    ec2.attach_volume(**send(props, ATTACHMENT))
    return f"vai-{props['volumeId']}-{props['instanceId']}"


def read_attachment(_id: str, props: Props) -> Props | None:
    attached = ec2.describe_volumes(VolumeIds=[props["volumeId"]])["Volumes"][0]["Attachments"]
    return next((take(a, ATTACHMENT) for a in attached if a["InstanceId"] == props["instanceId"]), None)


def detach(_id: str, props: Props) -> None:
    if props.get("stopInstanceBeforeDetaching"):
        ec2.stop_instances(InstanceIds=[props["instanceId"]])
    ec2.detach_volume(**send(props, ATTACHMENT))


def read_association(association_id: str, _props: Props) -> Props | None:
    found = ec2.describe_addresses(Filters=[{"Name": "association-id", "Values": [association_id]}])["Addresses"]
    return take(found[0], "allocationId instanceId") if found else None


ROLE = "name=RoleName assumeRolePolicy=AssumeRolePolicyDocument maxSessionDuration"
POLICY, POLICY_NAME = "role=RoleName name=PolicyName policy=PolicyDocument", "role=RoleName name=PolicyName"
POLICY_ARN = "role=RoleName policyArn"
PROFILE = "name=InstanceProfileName"


def put_role_policy(props: Props) -> str:
    iam.put_role_policy(**send(props, POLICY))
    return f"{props['role']}:{props['name']}"


def read_role_policy(policy_id: str, _props: Props) -> Props:
    role, _, name = policy_id.partition(":")
    return take(iam.get_role_policy(RoleName=role, PolicyName=name), POLICY)


def attach_role_policy(props: Props) -> str:
    iam.attach_role_policy(**send(props, POLICY_ARN))
    return f"{props['role']}/{props['policyArn']}"


def read_role_policy_attachment(_id: str, props: Props) -> Props | None:
    attached = iam.list_attached_role_policies(RoleName=props["role"])["AttachedPolicies"]
    return {} if any(policy["PolicyArn"] == props["policyArn"] for policy in attached) else None


def create_profile(props: Props) -> str:
    iam.create_instance_profile(**send(props, PROFILE))
    iam.add_role_to_instance_profile(**send(props, f"{PROFILE} role=RoleName"))
    return props["name"]


def read_profile(name: str, _props: Props) -> Props:
    profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    return {**take(profile, f"{PROFILE} arn"), "role": "".join(role["RoleName"] for role in profile["Roles"])}


def delete_profile(name: str, props: Props) -> None:
    iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=props["role"])
    iam.delete_instance_profile(InstanceProfileName=name)


def put_parameter(props: Props, *, overwrite: bool = False) -> str:
    value = props["insecureValue"] if "insecureValue" in props else props["value"]
    ssm.put_parameter(**send(props, "name type tier"), Value=value, Overwrite=overwrite)
    return props["name"]


def read_parameter(name: str, props: Props) -> Props:
    found = take(ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"], "name value type version arn=ARN")
    return {**found, "insecureValue": found["value"]} if "insecureValue" in props else found


def write_record(action: str, props: Props) -> str:
    values = [{"Value": value} for value in props["records"]]
    record = {**send(props, "name type ttl=TTL"), "ResourceRecords": values}
    changes = [{"Action": action, "ResourceRecordSet": record}]
    route53.change_resource_record_sets(HostedZoneId=props["zoneId"], ChangeBatch={"Changes": changes})
    return f"{props['zoneId']}_{props['name']}_{props['type']}"


def read_record(record_id: str, _props: Props) -> Props | None:
    zone, name, kind = record_id.split("_")
    for record in route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]:
        if (record["Name"].rstrip("."), record["Type"]) == (name, kind):
            values = [value["Value"] for value in record["ResourceRecords"]]
            return {**take(record, "type ttl=TTL"), "zoneId": zone, "name": name, "records": values}
    return None


def create_access_entry(props: Props) -> str:
    eks.describe_cluster(name=props["clusterName"])
    iam.get_role(RoleName=props["principalArn"].rpartition("/")[2])
    return f"{props['clusterName']}:{props['principalArn']}"


def create_lifecycle_policy(props: Props) -> str:
    role = props["executionRoleArn"].rpartition("/")[2]
    iam.get_role(RoleName=role)
    return f"policy-{role}"


def only_state(_id: str, _old: Props, _new: Props) -> None:
    """What can change without a new resource is nothing that AWS has."""


GROUP = tagged_kind(
    "create_security_group describe_security_groups delete_security_group security-group",
    "GroupId",
    "name=GroupName description vpcId",
)
KINDS = {
    "aws:ec2/eip:Eip": tagged_kind(
        "allocate_address describe_addresses release_address elastic-ip",
        *("AllocationId", "domain", "allocationId publicIp"),
        replaces=("domain",),
    ),
    "aws:ec2/eipAssociation:EipAssociation": Kind(
        lambda p: ec2.associate_address(**send(p, "allocationId instanceId allowReassociation"))["AssociationId"],
        read_association,
        lambda i, _: ec2.disassociate_address(AssociationId=i),
        only_state,
        replaces=("allocationId", "instanceId"),
    ),
    "aws:ec2/securityGroup:SecurityGroup": replace(
        GROUP, create=create_group, replaces=("name", "description", "vpcId"), named=True
    ),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": rule_kind("ingress"),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": rule_kind("egress"),
    "aws:iam/role:Role": Kind(
        lambda p: iam.create_role(**send(p, ROLE))["Role"]["RoleName"],
        lambda i, _: take(iam.get_role(RoleName=i)["Role"], f"{ROLE} arn uniqueId=RoleId"),
        lambda i, _: iam.delete_role(RoleName=i),
        lambda i, _, p: iam.update_assume_role_policy(RoleName=i, PolicyDocument=p["assumeRolePolicy"]),
        replaces=("name",),
        computed=("arn", "uniqueId"),
        named=True,
    ),
    "aws:iam/rolePolicy:RolePolicy": Kind(
        put_role_policy,
        read_role_policy,
        lambda _, p: iam.delete_role_policy(**send(p, POLICY_NAME)),
        lambda _id, _old, p: put_role_policy(p),
        replaces=("name", "role"),
        named=True,
    ),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": Kind(
        attach_role_policy,
        read_role_policy_attachment,
        lambda _, p: iam.detach_role_policy(**send(p, POLICY_ARN)),
    ),
    "aws:iam/instanceProfile:InstanceProfile": Kind(
        create_profile, read_profile, delete_profile, computed=("arn",), named=True
    ),
    "aws:ebs/volume:Volume": tagged_kind(
        "create_volume describe_volumes delete_volume volume",
        *("VolumeId", "availabilityZone size snapshotId encrypted type=VolumeType"),
        update=update_volume,
        replaces=("availabilityZone", "snapshotId", "encrypted"),
    ),
    "aws:ec2/instance:Instance": Kind(
        create_instance,
        read_instance,
        lambda i, _: ec2.terminate_instances(InstanceIds=[i]),
        update_instance,
        replaces=("ami", "subnetId", "rootBlockDevice.encrypted"),
        replaces_if=lambda new: ("userDataBase64",) if new.get("userDataReplaceOnChange") else (),
    ),
    "aws:ec2/volumeAttachment:VolumeAttachment": Kind(
        attach, read_attachment, detach, only_state, replaces=("deviceName", "instanceId", "volumeId")
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
        functools.partial(write_record, "CREATE"),
        read_record,
        lambda _, p: write_record("DELETE", p),
        lambda _id, _old, p: write_record("UPSERT", p),
        replaces=("zoneId", "name", "type"),
    ),
    "aws:eks/accessEntry:AccessEntry": Kind(
        create_access_entry, lambda _, p: p, update=only_state, replaces=("clusterName", "principalArn", "type")
    ),
    "aws:dlm/lifecyclePolicy:LifecyclePolicy": Kind(create_lifecycle_policy, lambda _, p: p, update=only_state),
}


def get_cluster(args: Props) -> Props:
    cluster = eks.describe_cluster(name=args["name"])["cluster"]
    return {
        **{key: cluster[key] for key in ("name", "arn", "endpoint")},
        "certificateAuthorities": [cluster["certificateAuthority"]],
        "vpcConfig": cluster["resourcesVpcConfig"],
        "accessConfigs": [cluster["accessConfig"]] if "accessConfig" in cluster else [],
    }


def get_subnet(args: Props) -> Props:
    found = {"Tags": [], **ec2.describe_subnets(SubnetIds=[args["id"]])["Subnets"][0]}
    return take(found, "id=SubnetId vpcId cidrBlock availabilityZone mapPublicIpOnLaunch")


def get_route_table(args: Props) -> Props:
    table = ec2.describe_route_tables(RouteTableIds=[args["routeTableId"]])["RouteTables"][0]
    empty = {"DestinationCidrBlock": "", "GatewayId": "", "SubnetId": ""}
    return {
        "routes": [take(empty | route, "cidrBlock=DestinationCidrBlock gatewayId") for route in table["Routes"]],
        "associations": [take(empty | made, "subnetId main") for made in table["Associations"]],
    }


def get_volume(args: Props) -> Props:
    (found,) = ec2.describe_volumes(Filters=filters(args))["Volumes"]
    return take({"SnapshotId": "", **found}, "volumeId availabilityZone snapshotId")


def filters(args: Props) -> list[dict]:
    vpc = [{"Name": "vpc-id", "Values": [args["vpcId"]]}] if "vpcId" in args else []
    return [*vpc, *(send(given, "name values") for given in args.get("filters", []))]


def ids(describe: str, there: str, key: str) -> Callable[[Props], Props]:
    """A look-up of the ids of all that passes the filters."""
    return lambda args: {"ids": [found[key] for found in getattr(ec2, describe)(Filters=filters(args))[there]]}


def get_zone(args: Props) -> Props:
    zones = route53.list_hosted_zones()["HostedZones"]
    found = [zone["Id"].rpartition("/")[2] for zone in zones if zone["Name"].rstrip(".") == args["name"]]
    if len(found) != 1:
        raise LookupError(f"{len(found)} Route 53 zones are called {args['name']}")
    return {"zoneId": found[0], "arn": f"arn:aws:route53:::hostedzone/{found[0]}"}


def get_parameter(args: Props) -> Props:
    found = read_parameter(args["name"], {})
    return {**found, "insecureValue": found["value"]} if found["type"] != "SecureString" else found


FUNCTIONS = {
    "aws:ebs/getEbsVolumes:getEbsVolumes": ids("describe_volumes", "Volumes", "VolumeId"),
    "aws:ebs/getVolume:getVolume": get_volume,
    "aws:ec2/getRouteTable:getRouteTable": get_route_table,
    "aws:ec2/getRouteTables:getRouteTables": ids("describe_route_tables", "RouteTables", "RouteTableId"),
    "aws:ec2/getSubnet:getSubnet": get_subnet,
    "aws:ec2/getSubnets:getSubnets": ids("describe_subnets", "Subnets", "SubnetId"),
    "aws:eks/getCluster:getCluster": get_cluster,
    "aws:eks/getClusters:getClusters": lambda _: {"names": eks.list_clusters()["clusters"]},
    "aws:route53/getZone:getZone": get_zone,
    "aws:ssm/getParameter:getParameter": get_parameter,
}


class Provider(server.Provider):
    package, kinds, functions, errors = "pulumi_aws", KINDS, FUNCTIONS, (ClientError,)

    def configure(self, config: Props) -> None:
        os.environ["AWS_DEFAULT_REGION"] = config.get("region") or os.environ["AWS_REGION"]

    def is_gone(self, error: Exception) -> bool:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
        return "NotFound" in code or "NoSuch" in code
