"""The AWS resources and look-ups of the program, as calls to the emulated account."""

import base64
from collections.abc import Callable
from typing import Any

from sandbox.account import Account

Created = tuple[str, dict[str, Any]]
CREATE: dict[str, Callable[[Account, str, dict], Created]] = {}
LOOK_UP: dict[str, Callable[[Account, dict], dict]] = {}


def create(account: Account, token: str, name: str, inputs: dict) -> Created:
    """Creates one resource; returns its id, and its inputs with what AWS adds to them."""
    if token not in CREATE:
        raise NotImplementedError(f"the rehearsal cannot create {token} ({name})")
    resource_id, added = CREATE[token](account, name, inputs)
    return resource_id, {**inputs, "id": resource_id, **added}


def look_up(account: Account, token: str, args: dict) -> dict:
    """Answers one function of the AWS provider. An error of AWS's is raised as it is."""
    if token not in LOOK_UP:
        raise NotImplementedError(f"the rehearsal cannot look up {token}")
    return LOOK_UP[token](account, args)


def creates(token: str) -> Callable:
    return lambda function: CREATE.setdefault(token, function)


def looks_up(token: str) -> Callable:
    return lambda function: LOOK_UP.setdefault(token, function)


def _tags(kind: str, inputs: dict) -> list[dict]:
    return [{"ResourceType": kind, "Tags": [{"Key": k, "Value": v} for k, v in inputs.get("tags", {}).items()]}]


@creates("aws:ec2/eip:Eip")
def _eip(account: Account, name: str, inputs: dict) -> Created:
    made = account.client("ec2").allocate_address(Domain="vpc", TagSpecifications=_tags("elastic-ip", inputs))
    return made["AllocationId"], {"allocationId": made["AllocationId"], "publicIp": made["PublicIp"]}


@creates("aws:ec2/eipAssociation:EipAssociation")
def _eip_association(account: Account, name: str, inputs: dict) -> Created:
    made = account.client("ec2").associate_address(
        AllocationId=inputs["allocationId"], InstanceId=inputs["instanceId"], AllowReassociation=True
    )
    return made["AssociationId"], {}


@creates("aws:ec2/securityGroup:SecurityGroup")
def _security_group(account: Account, name: str, inputs: dict) -> Created:
    ec2 = account.client("ec2")
    group = ec2.create_security_group(
        GroupName=name,
        Description=inputs["description"],
        VpcId=inputs["vpcId"],
        TagSpecifications=_tags("security-group", inputs),
    )["GroupId"]
    # As the provider does: what may leave is what the program says.
    everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[everything])
    return group, {}


def _permission(inputs: dict) -> dict:
    source = (
        {"IpRanges": [{"CidrIp": inputs["cidrIpv4"], "Description": inputs.get("description", "")}]}
        if "cidrIpv4" in inputs
        else {"UserIdGroupPairs": [{"GroupId": inputs["referencedSecurityGroupId"]}]}
    )
    ports = {"FromPort": int(inputs["fromPort"]), "ToPort": int(inputs["toPort"])} if "fromPort" in inputs else {}
    return {"IpProtocol": inputs["ipProtocol"], **ports, **source}


@creates("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
def _ingress_rule(account: Account, name: str, inputs: dict) -> Created:
    made = account.client("ec2").authorize_security_group_ingress(
        GroupId=inputs["securityGroupId"], IpPermissions=[_permission(inputs)]
    )
    return made["SecurityGroupRules"][0]["SecurityGroupRuleId"], {}


@creates("aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule")
def _egress_rule(account: Account, name: str, inputs: dict) -> Created:
    made = account.client("ec2").authorize_security_group_egress(
        GroupId=inputs["securityGroupId"], IpPermissions=[_permission(inputs)]
    )
    return made["SecurityGroupRules"][0]["SecurityGroupRuleId"], {}


@creates("aws:iam/role:Role")
def _role(account: Account, name: str, inputs: dict) -> Created:
    made = account.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=inputs["assumeRolePolicy"])["Role"]
    return name, {"name": name, "arn": made["Arn"], "uniqueId": made["RoleId"]}


@creates("aws:iam/rolePolicy:RolePolicy")
def _role_policy(account: Account, name: str, inputs: dict) -> Created:
    account.client("iam").put_role_policy(RoleName=inputs["role"], PolicyName=name, PolicyDocument=inputs["policy"])
    return f"{inputs['role']}:{name}", {}


@creates("aws:iam/rolePolicyAttachment:RolePolicyAttachment")
def _role_policy_attachment(account: Account, name: str, inputs: dict) -> Created:
    account.client("iam").attach_role_policy(RoleName=inputs["role"], PolicyArn=inputs["policyArn"])
    return f"{inputs['role']}/{inputs['policyArn']}", {}


@creates("aws:iam/instanceProfile:InstanceProfile")
def _instance_profile(account: Account, name: str, inputs: dict) -> Created:
    iam = account.client("iam")
    iam.create_instance_profile(InstanceProfileName=name)
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=inputs["role"])
    return name, {"name": name}


@creates("aws:ebs/volume:Volume")
def _volume(account: Account, name: str, inputs: dict) -> Created:
    made = account.client("ec2").create_volume(
        AvailabilityZone=inputs["availabilityZone"],
        Size=int(inputs["size"]),
        VolumeType=inputs["type"],
        Encrypted=inputs["encrypted"],
        TagSpecifications=_tags("volume", inputs),
    )
    return made["VolumeId"], {}


@creates("aws:ec2/instance:Instance")
def _instance(account: Account, name: str, inputs: dict) -> Created:
    metadata, root = inputs["metadataOptions"], inputs["rootBlockDevice"]
    made = account.client("ec2").run_instances(
        ImageId=inputs["ami"],
        MinCount=1,
        MaxCount=1,
        InstanceType=inputs["instanceType"],
        SubnetId=inputs["subnetId"],
        SecurityGroupIds=inputs["vpcSecurityGroupIds"],
        IamInstanceProfile={"Name": inputs["iamInstanceProfile"]},
        UserData=base64.b64decode(inputs["userDataBase64"]),  # boto3 encodes it
        MetadataOptions={
            "HttpEndpoint": metadata["httpEndpoint"],
            "HttpTokens": metadata["httpTokens"],
            "HttpPutResponseHopLimit": int(metadata["httpPutResponseHopLimit"]),
        },
        BlockDeviceMappings=[
            {
                "DeviceName": "/dev/xvda",
                "Ebs": {
                    "Encrypted": root["encrypted"],
                    "VolumeType": root["volumeType"],
                    "VolumeSize": int(root["volumeSize"]),
                },
            }
        ],
        TagSpecifications=_tags("instance", inputs),
    )["Instances"][0]
    return made["InstanceId"], {}


@creates("aws:ec2/volumeAttachment:VolumeAttachment")
def _volume_attachment(account: Account, name: str, inputs: dict) -> Created:
    account.client("ec2").attach_volume(
        Device=inputs["deviceName"], InstanceId=inputs["instanceId"], VolumeId=inputs["volumeId"]
    )
    return f"vai-{inputs['volumeId']}", {}


@creates("aws:ssm/parameter:Parameter")
def _parameter(account: Account, name: str, inputs: dict) -> Created:
    account.client("ssm").put_parameter(
        Name=inputs["name"],
        Value=inputs.get("insecureValue") or inputs["value"],
        Type=inputs["type"],
        Tier=inputs["tier"],
    )
    return inputs["name"], {}


@creates("aws:route53/record:Record")
def _record(account: Account, name: str, inputs: dict) -> Created:
    record = {
        "Name": inputs["name"],
        "Type": inputs["type"],
        "TTL": int(inputs["ttl"]),
        "ResourceRecords": [{"Value": value} for value in inputs["records"]],
    }
    account.client("route53").change_resource_record_sets(
        HostedZoneId=inputs["zoneId"],
        ChangeBatch={"Changes": [{"Action": "CREATE", "ResourceRecordSet": record}]},
    )
    return f"{inputs['zoneId']}_{inputs['name']}_{inputs['type']}", {}


@creates("aws:eks/accessEntry:AccessEntry")
def _access_entry(account: Account, name: str, inputs: dict) -> Created:
    # moto has no access entries: that the cluster is there is all that can be checked.
    account.client("eks").describe_cluster(name=inputs["clusterName"])
    return f"{inputs['clusterName']}:{inputs['principalArn']}", {}


@creates("aws:dlm/lifecyclePolicy:LifecyclePolicy")
def _lifecycle_policy(account: Account, name: str, inputs: dict) -> Created:
    # moto has no snapshot policies: that the role is there is all that can be checked.
    account.client("iam").get_role(RoleName=inputs["executionRoleArn"].rpartition("/")[2])
    return f"policy-{name}", {}


@looks_up("aws:eks/getCluster:getCluster")
def _get_cluster(account: Account, args: dict) -> dict:
    cluster = account.client("eks").describe_cluster(name=args["name"])["cluster"]
    return {
        "id": cluster["name"],
        "name": cluster["name"],
        "arn": cluster["arn"],
        "endpoint": cluster["endpoint"],
        "certificateAuthorities": [cluster["certificateAuthority"]],
        "vpcConfig": cluster["resourcesVpcConfig"],
        "accessConfigs": [],
    }


@looks_up("aws:eks/getClusters:getClusters")
def _get_clusters(account: Account, args: dict) -> dict:
    return {"id": "all", "names": account.client("eks").list_clusters()["clusters"]}


@looks_up("aws:ec2/getSubnets:getSubnets")
def _get_subnets(account: Account, args: dict) -> dict:
    filters = [{"Name": f["name"], "Values": f["values"]} for f in args["filters"]]
    found = account.client("ec2").describe_subnets(Filters=filters)["Subnets"]
    return {"id": "all", "ids": [subnet["SubnetId"] for subnet in found]}


@looks_up("aws:ec2/getSubnet:getSubnet")
def _get_subnet(account: Account, args: dict) -> dict:
    subnet = account.client("ec2").describe_subnets(SubnetIds=[args["id"]])["Subnets"][0]
    return {
        "id": subnet["SubnetId"],
        "vpcId": subnet["VpcId"],
        "cidrBlock": subnet["CidrBlock"],
        "availabilityZone": subnet["AvailabilityZone"],
        "mapPublicIpOnLaunch": subnet["MapPublicIpOnLaunch"],
        "tags": {tag["Key"]: tag["Value"] for tag in subnet.get("Tags", [])},
    }


@looks_up("aws:ec2/getRouteTables:getRouteTables")
def _get_route_tables(account: Account, args: dict) -> dict:
    found = account.client("ec2").describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [args["vpcId"]]}])
    return {"id": "all", "ids": [table["RouteTableId"] for table in found["RouteTables"]]}


@looks_up("aws:ec2/getRouteTable:getRouteTable")
def _get_route_table(account: Account, args: dict) -> dict:
    table = account.client("ec2").describe_route_tables(RouteTableIds=[args["routeTableId"]])["RouteTables"][0]
    routes = [
        {"cidrBlock": r.get("DestinationCidrBlock", ""), "gatewayId": r.get("GatewayId", "")} for r in table["Routes"]
    ]
    associations = [{"subnetId": a.get("SubnetId", ""), "main": a["Main"]} for a in table["Associations"]]
    return {"id": args["routeTableId"], "routes": routes, "associations": associations}


@looks_up("aws:ebs/getEbsVolumes:getEbsVolumes")
def _get_ebs_volumes(account: Account, args: dict) -> dict:
    filters = [{"Name": f["name"], "Values": f["values"]} for f in args["filters"]]
    return {
        "id": "all",
        "ids": [v["VolumeId"] for v in account.client("ec2").describe_volumes(Filters=filters)["Volumes"]],
    }


@looks_up("aws:ebs/getVolume:getVolume")
def _get_volume(account: Account, args: dict) -> dict:
    (volume,) = account.client("ec2").describe_volumes(VolumeIds=args["filters"][0]["values"])["Volumes"]
    return {
        "id": volume["VolumeId"],
        "volumeId": volume["VolumeId"],
        "availabilityZone": volume["AvailabilityZone"],
        "snapshotId": volume.get("SnapshotId", ""),
    }


@looks_up("aws:ssm/getParameter:getParameter")
def _get_parameter(account: Account, args: dict) -> dict:
    value = account.client("ssm").get_parameter(Name=args["name"])["Parameter"]["Value"]
    return {"id": args["name"], "name": args["name"], "value": value, "insecureValue": value}


@looks_up("aws:route53/getZone:getZone")
def _get_zone(account: Account, args: dict) -> dict:
    zones = account.client("route53").list_hosted_zones_by_name(DNSName=args["name"])["HostedZones"]
    zone = next(zone for zone in zones if zone["Name"].rstrip(".") == args["name"])
    zone_id = zone["Id"].rpartition("/")[2]
    return {"id": zone_id, "zoneId": zone_id, "name": args["name"], "arn": f"arn:aws:route53:::hostedzone/{zone_id}"}
