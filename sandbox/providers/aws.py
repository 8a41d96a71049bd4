"""The AWS resources and functions of the program, as calls to the emulated account.

To add one, add it to KINDS or FUNCTIONS. A call is written as ``ec2.create_volume size type=VolumeType``: the
operation, and those properties that it gets if they are set. ``=`` gives AWS's name, if that is another than the
same with a capital; ``[]`` makes it a list, and a name with a hyphen is that of a filter.

moto has no access entries and no snapshot policies: only what they refer to is checked, and only the state has them.
"""

import base64
import functools
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import boto3
from botocore.exceptions import ClientError

from sandbox.providers import server
from sandbox.providers.server import Kind, Props

Derive = Callable[[Props], Props]
# The services and the calls of S3 that have another name in IAM.
IAM_SERVICES = {"elbv2": "elasticloadbalancing"}
IAM_ACTIONS = {
    "DeleteBucketEncryption": "PutEncryptionConfiguration",
    "DeleteBucketLifecycle": "PutLifecycleConfiguration",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "GetObjectLockConfiguration": "GetBucketObjectLockConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "HeadBucket": "ListBucket",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "PutObjectLockConfiguration": "PutBucketObjectLockConfiguration",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
}
CALLS = "SANDBOX_AWS_CALLS"  # names a file that each call is written to, for the test of the pipeline's permissions


@functools.cache
def client(service: str) -> Any:
    """A client of the emulated account. Never of the real AWS, so there must be an endpoint."""

    def write_down(params: Props, model: Any, **_: Any) -> None:
        with open(os.environ[CALLS], "a") as file:
            action = f"{IAM_SERVICES.get(service, service)}:{IAM_ACTIONS.get(model.name, model.name)}"
            file.write(json.dumps([action, params], default=repr) + "\n")

    client = boto3.client(service, endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    if CALLS in os.environ:
        client.meta.events.register("provide-client-params", write_down)
    return client


def fields(spec: str) -> Iterator[tuple[str, str]]:
    for word in spec.split():
        name, _, there = word.partition("=")
        yield name, there or name[0].upper() + name[1:]


def send(props: Props, spec: str) -> Props:
    """The arguments of a call for those properties that are set."""
    sent: Props = {}
    for name, there in fields(spec):
        if name in props and "-" in there:
            sent.setdefault("Filters", []).append({"Name": there, "Values": [props[name]]})
        elif name in props:
            sent[there.removesuffix("[]")] = [props[name]] if there.endswith("[]") else props[name]
    return sent


def take(answer: Props, spec: str) -> Props:
    """The properties that an answer has; documents are text, and tags are a map."""
    found = {name: answer[there] for name, there in fields(spec) if answer.get(there) not in (None, -1)}
    found = {name: json.dumps(v) if name.lower().endswith("policy") else v for name, v in found.items()}
    return {**found, "tags": {t["Key"]: t["Value"] for t in answer["Tags"]}} if "Tags" in answer else found


def call(text: str, props: Props, **more: Any) -> Props:
    operation, _, spec = text.partition(" ")
    service, _, name = operation.partition(".")
    return getattr(client(service), name)(**send(props, spec), **more)


def find(text: str, props: Props, **more: Any) -> list[Props]:
    """What a look-up finds: ``ec2.describe_volumes:Volumes id=VolumeIds[]`` names the part of the answer."""
    operation, _, spec = text.partition(" ")
    name, _, part = operation.partition(":")
    answer = call(f"{name} {spec}", props, **more)
    found = answer[part] if part else answer
    return found if isinstance(found, list) else [found]


def tag_list(tags: Props | list[Props]) -> list[dict]:
    if isinstance(tags, list):  # an Auto Scaling group says of each whether its instances get it
        return [send(tag, "key value propagateAtLaunch") for tag in tags]
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def retag(old: Props, new: Props) -> None:
    before, after = old.get("tags", {}), new.get("tags", {})
    if gone := [{"Key": key} for key in before if key not in after]:
        call("ec2.delete_tags id=Resources[]", new, Tags=gone)
    if after != before:
        call("ec2.create_tags id=Resources[]", new, Tags=tag_list(after))


def table(text: str, *, derive: Derive = lambda _: {}, read: Any = None, update: Any = None, **kind: Any) -> Kind:
    """A resource that is what its calls are, one a line: ``create``, ``read``, ``update``, ``delete``.

    ``id`` is made of its properties and the first answer. Without ``read`` the state is all there is. Of ``update``,
    those calls are made whose properties have changed. ``replaces *``: every change is a replacement. ``tag`` is what
    EC2 calls the type. ``derive`` adds properties for the calls.
    """
    lines: dict[str, list[str]] = {}
    for word, _, rest in (line.strip().partition(" ") for line in text.strip().splitlines()):
        lines.setdefault(word, []).append(rest.strip())
    tag, computed, replaces = (" ".join(lines.get(word, ())) for word in ("tag", "computed", "replaces"))
    spec = f"{lines['create'][0].partition(' ')[2]} {computed}"

    def add(resource_id: str, props: Props) -> Props:
        props = {**props, "id": resource_id, "yes": True, "tagList": tag_list(props.get("tags", {}))}
        return {**props, **derive(props)}

    def create(props: Props) -> str:
        tags = [{"ResourceType": tag, "Tags": tag_list(props.get("tags", {}))}]
        if root := props.get("rootBlockDevice", {}).get("tags"):
            tags.append({"ResourceType": "volume", "Tags": tag_list(root)})
        first, *others = lines["create"]
        answer = call(first, add("", props), **({"TagSpecifications": tags} if tag and "tags" in props else {}))
        made = lines["id"][0].format(**{**add("", props), **answer})
        for other in others:
            call(other, add(made, props))
        return made

    def look(resource_id: str, props: Props) -> Props | None:
        if "read" not in lines:
            return props
        found = find(lines["read"][0], {**props, "id": resource_id})
        return take(found[0], spec) if found else None

    def change(resource_id: str, old: Props, new: Props) -> None:
        known = {name: old[name] for name in names if name in old}
        old, new = add(resource_id, old), add(resource_id, {**known, **new})
        if tag:
            retag(old, new)
        if update:
            update(old, new)
        for line in lines.get("update", ()):
            if send(old, line.partition(" ")[2]) != send(new, line.partition(" ")[2]):
                call(line, new)

    def delete(resource_id: str, props: Props) -> None:
        for line in lines.get("delete", ()):
            call(line, add(resource_id, props))

    changes = None if replaces == "*" else change
    names = tuple(name for name, _ in fields(computed))
    return Kind(create, read or look, delete, changes, tuple(replaces.split()), computed=names, **kind)


RULE = "ipProtocol fromPort toPort cidrIpv4 description referencedSecurityGroupId=ReferencedGroupId"


def rule(direction: str) -> Kind:
    def derive(props: Props) -> Props:
        audience = "IpRanges" if "cidrIpv4" in props else "UserIdGroupPairs"
        who = send(props, "cidrIpv4=CidrIp referencedSecurityGroupId=GroupId description")
        change = {"SecurityGroupRuleId": props.get("id"), "SecurityGroupRule": send(props, RULE)}
        return {"permissions": [{**send(props, "ipProtocol fromPort toPort"), audience: [who]}], "rules": [change]}

    def read(rule_id: str, _props: Props) -> Props:
        (found,) = find(
            "ec2.describe_security_group_rules:SecurityGroupRules id=SecurityGroupRuleIds[]", {"id": rule_id}
        )
        found |= {"ReferencedGroupId": found.get("ReferencedGroupInfo", {}).get("GroupId")}
        return take(found, f"{RULE} securityGroupId=GroupId")

    text = f"""
        create ec2.authorize_security_group_{direction} securityGroupId=GroupId permissions=IpPermissions
        id {{SecurityGroupRules[0][SecurityGroupRuleId]}}
        update ec2.modify_security_group_rules securityGroupId=GroupId rules=SecurityGroupRules
        delete ec2.revoke_security_group_{direction} securityGroupId=GroupId id=SecurityGroupRuleIds[]
        tag security-group-rule
        replaces securityGroupId"""
    return table(text, derive=derive, read=read)


EVERYTHING = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
INSTANCE = """instanceType subnetId vpcSecurityGroupIds=SecurityGroupIds profile=IamInstanceProfile data=UserData
    metadata=MetadataOptions disks=BlockDeviceMappings one=MinCount ONE=MaxCount""".replace("\n", " ")


def derive_instance(props: Props) -> Props:
    disk = send(props.get("rootBlockDevice", {}), "encrypted kmsKeyId volumeType volumeSize") | {
        "DeleteOnTermination": True
    }
    return {
        "one": 1,
        "ONE": 1,
        "profile": {"Name": props["iamInstanceProfile"]},
        "data": base64.b64decode(props["userDataBase64"]),  # boto3 encodes it
        "metadata": send(props.get("metadataOptions", {}), "httpEndpoint httpTokens httpPutResponseHopLimit"),
        "disks": [{"DeviceName": "/dev/xvda", "Ebs": disk}],
    }


def read_instance(instance_id: str, _props: Props) -> Props | None:
    found = find("ec2.describe_instances:Reservations id=InstanceIds[]", {"id": instance_id})[0]["Instances"][0]
    if found["State"]["Name"] in ("shutting-down", "terminated"):
        return None
    data = call("ec2.describe_instance_attribute id=InstanceId", {"id": instance_id}, Attribute="userData")["UserData"]
    return {
        **take(found, "ami=ImageId instanceType subnetId"),
        "vpcSecurityGroupIds": [group["GroupId"] for group in found["SecurityGroups"]],
        "iamInstanceProfile": found["IamInstanceProfile"]["Arn"].rpartition("/")[2],
        "userDataBase64": data.get("Value", ""),
    }


def update_instance(old: Props, new: Props) -> None:
    if any(new[key] != old[key] for key in ("userDataBase64", "instanceType")):
        call("ec2.stop_instances id=InstanceIds[]", new)
        call("ec2.modify_instance_attribute id=InstanceId", new, InstanceType={"Value": new["instanceType"]})
        call("ec2.modify_instance_attribute id=InstanceId", new, UserData={"Value": new["data"]})
        call("ec2.start_instances id=InstanceIds[]", new)


ALARM = """name=AlarmName alarmDescription namespace metricName dimensionList=Dimensions statistic comparisonOperator
    threshold period evaluationPeriods treatMissingData alarmActions okActions=OKActions""".replace("\n", " ")
ROLE = "name=RoleName assumeRolePolicy=AssumeRolePolicyDocument maxSessionDuration path"


def read_role(name: str, _props: Props) -> Props:
    (role,) = find("iam.get_role:Role id=RoleName", {"id": name})
    boundary = role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
    found = take(role, f"{ROLE} arn uniqueId=RoleId")
    return {**found, "permissionsBoundary": boundary} if boundary else found


def read_attached_policy(_id: str, props: Props) -> Props | None:
    attached = find("iam.list_attached_role_policies:AttachedPolicies role=RoleName", props)
    return {} if any(policy["PolicyArn"] == props["policyArn"] for policy in attached) else None


def read_profile(name: str, _props: Props) -> Props:
    (profile,) = find("iam.get_instance_profile:InstanceProfile id=InstanceProfileName", {"id": name})
    return {
        **take(profile, "name=InstanceProfileName arn path"),
        "role": "".join(r["RoleName"] for r in profile["Roles"]),
    }


def read_parameter(name: str, props: Props) -> Props:
    (found,) = find("ssm.get_parameter:Parameter id=Name", {"id": name}, WithDecryption=True)
    found = take(found, "name value type version arn=ARN")
    return {**found, "insecureValue": found["value"]} if "insecureValue" in props else found


def derive_alarm(props: Props) -> Props:
    return {"dimensionList": [{"Name": name, "Value": value} for name, value in props["dimensions"].items()]}


def read_log_group(name: str, _props: Props) -> Props | None:
    for group in find("logs.describe_log_groups:logGroups name=logGroupNamePrefix", {"name": name}):
        if group["logGroupName"] == name:
            return take(group, "name=logGroupName retentionInDays=retentionInDays kmsKeyId=kmsKeyId arn=arn")
    return None


def derive_record(props: Props) -> Props:
    record = send(props, "name type ttl=TTL")
    for alias in props.get("aliases", ()):
        record["AliasTarget"] = send(alias, "name=DNSName zoneId=HostedZoneId evaluateTargetHealth")
    if "records" in props:
        record["ResourceRecords"] = [{"Value": value} for value in props["records"]]
    actions = ("CREATE", "UPSERT", "DELETE")
    return {action: {"Changes": [{"Action": action, "ResourceRecordSet": record}]} for action in actions}


def read_record(record_id: str, _props: Props) -> Props | None:
    zone, name, kind = record_id.split("_")
    for record in find("route53.list_resource_record_sets:ResourceRecordSets zone=HostedZoneId", {"zone": zone}):
        if (record["Name"].rstrip("."), record["Type"]) == (name, kind):
            found = {**take(record, "type ttl=TTL"), "zoneId": zone, "name": name}
            if alias := record.get("AliasTarget"):
                alias = take(alias, "name=DNSName zoneId=HostedZoneId evaluateTargetHealth")
                return {**found, "aliases": [{**alias, "name": alias["name"].rstrip(".")}]}
            return {**found, "records": [value["Value"] for value in record["ResourceRecords"]]}
    return None


ODD_NAMES = {"id": "ID", "kmsMasterKeyId": "KMSMasterKeyID", "sseAlgorithm": "SSEAlgorithm"}


def there(value: Any) -> Any:
    """A document as S3 takes it: with capitals."""
    if isinstance(value, dict):
        return {ODD_NAMES.get(key, key[0].upper() + key[1:]): there(item) for key, item in value.items()}
    return [there(item) for item in value] if isinstance(value, list) else value


def derive_bucket(props: Props) -> Props:
    region = os.environ["AWS_DEFAULT_REGION"]
    return {
        "place": {"LocationConstraint": region} if region != "us-east-1" else {},
        "tagSet": {"TagSet": tag_list(props["tags"])},
    }


def read_bucket(name: str, _props: Props) -> Props:
    call("s3.head_bucket id=Bucket", {"id": name})
    tags = find("s3.get_bucket_tagging:TagSet id=Bucket", {"id": name})
    return {"arn": f"arn:aws:s3:::{name}", "tags": {tag["Key"]: tag["Value"] for tag in tags}}


def covers(found: Any, document: Any) -> bool:
    """Whether all of the document is there; S3 adds what was not said."""
    if isinstance(document, dict):
        return isinstance(found, dict) and all(covers(found.get(key), item) for key, item in document.items())
    if isinstance(document, list):
        return isinstance(found, list) and len(found) == len(document) and all(map(covers, found, document))
    return found == document


def of_bucket(what: str, name: str, shape: Derive, delete: str = "") -> Kind:
    """One of the documents that a bucket has; ``shape`` makes it of the properties. Without ``delete`` it stays."""

    def read(bucket: str, props: Props) -> Props:
        found = call(f"s3.get_{what} id=Bucket", {"id": bucket})
        # What somebody has changed is shown as nothing.
        same = covers(found.get(name, found), there(shape(props)))
        return {} if same else {key: None for key in props if key not in ("bucket", "id")}

    text = f"""
        create s3.put_{what} bucket document={name}
        id {{bucket}}
        update s3.put_{what} bucket document={name}
        replaces bucket
        {f"delete s3.{delete} bucket" if delete else ""}"""
    unlocked = {"no_rule": {"ObjectLockEnabled": "Enabled"}}
    return table(text, derive=lambda props: {"document": there(shape(props)), **unlocked}, read=read)


def public_access(props: Props) -> Props:
    return {key: value for key, value in props.items() if key.startswith(("block", "ignore", "restrict"))}


TABLE = """name=TableName billingMode keys=KeySchema names=AttributeDefinitions indexes=GlobalSecondaryIndexes
    stream=StreamSpecification encryption=SSESpecification deletionProtectionEnabled""".replace("\n", " ")


def derive_table(props: Props) -> Props:
    def keys(of: Props) -> list[dict]:
        return [{"AttributeName": of[k], "KeyType": t} for k, t in (("hashKey", "HASH"), ("rangeKey", "RANGE"))]

    indexes = [
        {"IndexName": i["name"], "KeySchema": keys(i), "Projection": {"ProjectionType": i["projectionType"]}}
        for i in props.get("globalSecondaryIndexes", ())
    ]
    return {
        "keys": keys(props),
        "names": [send(attribute, "name=AttributeName type=AttributeType") for attribute in props["attributes"]],
        **({"indexes": indexes} if indexes else {}),
        "stream": send(props, "streamEnabled streamViewType") or {"StreamEnabled": False},
        "encryption": send(props.get("serverSideEncryption", {"enabled": False}), "enabled kmsKeyArn=KMSMasterKeyId"),
        "expiry": send(props["ttl"], "attributeName enabled"),
        "recovery": send(props["pointInTimeRecovery"], "enabled=PointInTimeRecoveryEnabled"),
    }


def read_table(name: str, _props: Props) -> Props:
    (table,) = find("dynamodb.describe_table:Table id=TableName", {"id": name})
    (ttl,) = find("dynamodb.describe_time_to_live:TimeToLiveDescription id=TableName", {"id": name})
    backups = call("dynamodb.describe_continuous_backups id=TableName", {"id": name})["ContinuousBackupsDescription"]
    recovery = backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
    return {
        **take(table, "name=TableName arn=TableArn streamArn=LatestStreamArn deletionProtectionEnabled"),
        "billingMode": table["BillingModeSummary"]["BillingMode"],
        "ttl": {**take(ttl, "attributeName"), "enabled": ttl["TimeToLiveStatus"] == "ENABLED"},
        "pointInTimeRecovery": {"enabled": recovery},
    }


def attributes(**names: str) -> Derive:
    """The list of an ELB's attributes, by their properties."""

    def text(value: Any) -> str:
        return str(value).lower()

    return lambda props: {"attributes": [{"Key": key, "Value": text(props[name])} for name, key in names.items()]}


def read_balancer(arn: str, _props: Props) -> Props:
    (found,) = find("elbv2.describe_load_balancers:LoadBalancers id=LoadBalancerArns[]", {"id": arn})
    said = find("elbv2.describe_load_balancer_attributes:Attributes id=LoadBalancerArn", {"id": arn})
    flags = {attribute["Key"]: attribute["Value"] == "true" for attribute in said}
    return {
        **take(found, "name=LoadBalancerName loadBalancerType=Type zoneId=CanonicalHostedZoneId"),
        "arn": arn,
        "dnsName": found["DNSName"],
        "subnets": [zone["SubnetId"] for zone in found["AvailabilityZones"]],
        "enableCrossZoneLoadBalancing": flags["load_balancing.cross_zone.enabled"],
        "enableDeletionProtection": flags["deletion_protection.enabled"],
    }


balancer_attributes = attributes(
    enableCrossZoneLoadBalancing="load_balancing.cross_zone.enabled",
    enableDeletionProtection="deletion_protection.enabled",
)
target_attributes = attributes(
    preserveClientIp="preserve_client_ip.enabled",
    deregistrationDelay="deregistration_delay.timeout_seconds",
)


def derive_balancer(props: Props) -> Props:
    return {**balancer_attributes(props), "scheme": "internal" if props["internal"] else "internet-facing"}


CHECK = """protocol=HealthCheckProtocol port=HealthCheckPort path=HealthCheckPath interval=HealthCheckIntervalSeconds
    timeout=HealthCheckTimeoutSeconds healthyThreshold=HealthyThresholdCount unhealthyThreshold=UnhealthyThresholdCount
    """.replace("\n", " ")
CHECKED = " ".join(there for _, there in fields(CHECK)) + " Matcher"


def derive_targets(props: Props) -> Props:
    check = props["healthCheck"]
    return {**target_attributes(props), **send(check, CHECK), "Matcher": {"HttpCode": check["matcher"]}}


def derive_listener(props: Props) -> Props:
    return {"actions": [send(action, "type targetGroupArn") for action in props["defaultActions"]]}


def derive_template(props: Props) -> Props:
    cards = [
        {
            **send(card, "deviceIndex securityGroups=Groups"),
            "AssociatePublicIpAddress": card["associatePublicIpAddress"] == "true",
        }
        for card in props["networkInterfaces"]
    ]
    disks = [
        {
            "DeviceName": disk["deviceName"],
            "Ebs": send(disk["ebs"], "kmsKeyId volumeType volumeSize")
            | {
                name[0].upper() + name[1:]: disk["ebs"][name] == "true" for name in ("encrypted", "deleteOnTermination")
            },
        }
        for disk in props["blockDeviceMappings"]
    ]
    tags = [
        {"ResourceType": spec["resourceType"], "Tags": tag_list(spec["tags"])} for spec in props["tagSpecifications"]
    ]
    return {
        "template": {
            **send(props, "imageId instanceType userData"),
            "IamInstanceProfile": send(props["iamInstanceProfile"], "name"),
            "MetadataOptions": send(props["metadataOptions"], "httpEndpoint httpTokens httpPutResponseHopLimit"),
            "NetworkInterfaces": cards,
            "BlockDeviceMappings": disks,
            "TagSpecifications": tags,
        }
    }


GROUP = """name=AutoScalingGroupName minSize maxSize desiredCapacity healthCheckType healthCheckGracePeriod
    zones=VPCZoneIdentifier template=LaunchTemplate policy=InstanceMaintenancePolicy""".replace("\n", " ")


def derive_group(props: Props) -> Props:
    return {
        "zones": ",".join(props["vpcZoneIdentifiers"]),
        "template": send(props["launchTemplate"], "id=LaunchTemplateId version"),
        "policy": send(props["instanceMaintenancePolicy"], "minHealthyPercentage maxHealthyPercentage"),
        "preferences": send(props["instanceRefresh"]["preferences"], "minHealthyPercentage maxHealthyPercentage")
        | {"InstanceWarmup": int(props["instanceRefresh"]["preferences"]["instanceWarmup"])},
        "groupTags": [
            {**tag, "ResourceId": props.get("name"), "ResourceType": "auto-scaling-group"}
            for tag in tag_list(props["tags"])
        ],
    }


def read_group(name: str, _props: Props) -> Props | None:
    found = find("autoscaling.describe_auto_scaling_groups:AutoScalingGroups id=AutoScalingGroupNames[]", {"id": name})
    if not found:
        return None
    group = {key: value for key, value in found[0].items() if key != "Tags"}
    return {
        **take(group, "name=AutoScalingGroupName arn=AutoScalingGroupARN minSize maxSize desiredCapacity"),
        **take(group, "healthCheckType healthCheckGracePeriod targetGroupArns=TargetGroupARNs"),
        "launchTemplate": take(group["LaunchTemplate"], "id=LaunchTemplateId version"),
        "vpcZoneIdentifiers": group["VPCZoneIdentifier"].split(","),
    }


def update_group(old: Props, new: Props) -> None:
    call(f"autoscaling.update_auto_scaling_group {GROUP}", new)
    if new["template"] != old["template"]:
        call("autoscaling.start_instance_refresh id=AutoScalingGroupName preferences", new)


def role_of(key: str) -> Derive:
    return lambda props: {"role": props[key].rpartition("/")[2]}


KINDS = {
    "aws:ec2/eip:Eip": table("""
        create ec2.allocate_address domain
        id {AllocationId}
        read ec2.describe_addresses:Addresses id=AllocationIds[]
        delete ec2.release_address id=AllocationId
        tag elastic-ip
        computed allocationId publicIp
        replaces domain"""),
    "aws:ec2/eipAssociation:EipAssociation": table("""
        create ec2.associate_address allocationId instanceId allowReassociation
        id {AssociationId}
        read ec2.describe_addresses:Addresses id=association-id
        delete ec2.disassociate_address id=AssociationId
        replaces allocationId instanceId"""),
    # As with the real provider, only what the program says may leave.
    "aws:ec2/securityGroup:SecurityGroup": table("""
        create ec2.create_security_group name=GroupName description vpcId
        create ec2.revoke_security_group_egress id=GroupId everything=IpPermissions
        id {GroupId}
        read ec2.describe_security_groups:SecurityGroups id=GroupIds[]
        delete ec2.delete_security_group id=GroupId
        tag security-group
        replaces name description vpcId""", derive=lambda _: {"everything": [EVERYTHING]}, named="name"),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": rule("ingress"),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": rule("egress"),
    "aws:iam/role:Role": table(f"""
        create iam.create_role {ROLE} permissionsBoundary tagList=Tags
        id {{name}}
        read iam.get_role:Role id=RoleName
        update iam.update_assume_role_policy id=RoleName assumeRolePolicy=PolicyDocument
        update iam.put_role_permissions_boundary id=RoleName permissionsBoundary
        update iam.tag_role id=RoleName tagList=Tags
        delete iam.delete_role id=RoleName
        computed arn uniqueId=RoleId
        replaces name path""", read=read_role, named="name"),
    "aws:iam/rolePolicy:RolePolicy": table("""
        create iam.put_role_policy role=RoleName name=PolicyName policy=PolicyDocument
        id {role}:{name}
        read iam.get_role_policy role=RoleName name=PolicyName
        update iam.put_role_policy role=RoleName name=PolicyName policy=PolicyDocument
        delete iam.delete_role_policy role=RoleName name=PolicyName
        replaces name role""", named="name"),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": table("""
        create iam.attach_role_policy role=RoleName policyArn
        id {role}/{policyArn}
        delete iam.detach_role_policy role=RoleName policyArn
        replaces *""", read=read_attached_policy),
    "aws:iam/instanceProfile:InstanceProfile": table("""
        create iam.create_instance_profile name=InstanceProfileName path tagList=Tags
        create iam.add_role_to_instance_profile name=InstanceProfileName role=RoleName
        id {name}
        delete iam.remove_role_from_instance_profile id=InstanceProfileName role=RoleName
        delete iam.delete_instance_profile id=InstanceProfileName
        computed arn
        replaces *""", read=read_profile, named="name"),
    "aws:ebs/volume:Volume": table("""
        create ec2.create_volume availabilityZone size snapshotId encrypted kmsKeyId type=VolumeType
        id {VolumeId}
        read ec2.describe_volumes:Volumes id=VolumeIds[]
        update ec2.modify_volume id=VolumeId size
        delete ec2.delete_volume id=VolumeId
        tag volume
        replaces availabilityZone snapshotId encrypted kmsKeyId"""),
    "aws:ec2/instance:Instance": table(f"""
        create ec2.run_instances ami=ImageId {INSTANCE}
        id {{Instances[0][InstanceId]}}
        update ec2.modify_instance_attribute id=InstanceId vpcSecurityGroupIds=Groups
        delete ec2.terminate_instances id=InstanceIds[]
        tag instance
        replaces ami subnetId rootBlockDevice.encrypted rootBlockDevice.kmsKeyId""",
        derive=derive_instance,
        read=read_instance,
        update=update_instance,
        replaces_if=lambda new: ("userDataBase64",) if new.get("userDataReplaceOnChange") else (),
    ),
    "aws:ec2/launchTemplate:LaunchTemplate": table("""
        create ec2.create_launch_template name=LaunchTemplateName template=LaunchTemplateData
        id {LaunchTemplate[LaunchTemplateId]}
        read ec2.describe_launch_templates:LaunchTemplates id=LaunchTemplateIds[]
        update ec2.create_launch_template_version id=LaunchTemplateId template=LaunchTemplateData
        delete ec2.delete_launch_template id=LaunchTemplateId
        tag launch-template
        computed latestVersion=LatestVersionNumber
        replaces name""", derive=derive_template, named="name", renewed=("latestVersion",)),
    "aws:autoscaling/group:Group": table(f"""
        create autoscaling.create_auto_scaling_group {GROUP} targetGroupArns=TargetGroupARNs groupTags=Tags
        id {{name}}
        update autoscaling.create_or_update_tags groupTags=Tags
        delete autoscaling.delete_auto_scaling_group id=AutoScalingGroupName yes=ForceDelete
        computed arn
        replaces name targetGroupArns""",
        derive=derive_group, read=read_group, update=update_group, named="name",
    ),
    "aws:lb/loadBalancer:LoadBalancer": table("""
        create elbv2.create_load_balancer name scheme subnets loadBalancerType=Type tagList=Tags
        create elbv2.modify_load_balancer_attributes id=LoadBalancerArn attributes
        id {LoadBalancers[0][LoadBalancerArn]}
        update elbv2.modify_load_balancer_attributes id=LoadBalancerArn attributes
        update elbv2.set_subnets id=LoadBalancerArn subnets
        update elbv2.add_tags id=ResourceArns[] tagList=Tags
        delete elbv2.delete_load_balancer id=LoadBalancerArn
        computed arn dnsName zoneId
        replaces name internal loadBalancerType""", derive=derive_balancer, read=read_balancer, named="name"),
    "aws:lb/targetGroup:TargetGroup": table(f"""
        create elbv2.create_target_group name port protocol vpcId {CHECKED} tagList=Tags
        create elbv2.modify_target_group_attributes id=TargetGroupArn attributes
        id {{TargetGroups[0][TargetGroupArn]}}
        read elbv2.describe_target_groups:TargetGroups id=TargetGroupArns[]
        update elbv2.modify_target_group id=TargetGroupArn {CHECKED}
        update elbv2.modify_target_group_attributes id=TargetGroupArn attributes
        update elbv2.add_tags id=ResourceArns[] tagList=Tags
        delete elbv2.delete_target_group id=TargetGroupArn
        computed arn=TargetGroupArn
        replaces name port protocol vpcId""", derive=derive_targets, named="name"),
    "aws:lb/listener:Listener": table("""
        create elbv2.create_listener loadBalancerArn port protocol actions=DefaultActions tagList=Tags
        id {Listeners[0][ListenerArn]}
        read elbv2.describe_listeners:Listeners id=ListenerArns[]
        update elbv2.modify_listener id=ListenerArn port protocol actions=DefaultActions
        update elbv2.add_tags id=ResourceArns[] tagList=Tags
        delete elbv2.delete_listener id=ListenerArn
        computed arn=ListenerArn
        replaces loadBalancerArn""", derive=derive_listener),
    "aws:dynamodb/table:Table": table(f"""
        create dynamodb.create_table {TABLE} tagList=Tags
        create dynamodb.update_time_to_live id=TableName expiry=TimeToLiveSpecification
        create dynamodb.update_continuous_backups id=TableName recovery=PointInTimeRecoverySpecification
        id {{name}}
        update dynamodb.update_table id=TableName deletionProtectionEnabled
        update dynamodb.tag_resource arn=ResourceArn tagList=Tags
        delete dynamodb.delete_table id=TableName
        computed arn streamArn
        replaces name hashKey rangeKey""", derive=derive_table, read=read_table, named="name"),
    "aws:ec2/volumeAttachment:VolumeAttachment": table("""
        create ec2.attach_volume deviceName=Device instanceId volumeId
        id vai-{volumeId}-{instanceId}
        read ec2.describe_volumes:Volumes volumeId=VolumeIds[] instanceId=attachment.instance-id
        delete ec2.stop_instances instanceId=InstanceIds[]
        delete ec2.detach_volume deviceName=Device instanceId volumeId
        replaces deviceName instanceId volumeId"""),
    "aws:s3/bucket:Bucket": table("""
        create s3.create_bucket bucket place=CreateBucketConfiguration
        create s3.put_bucket_tagging bucket tagSet=Tagging
        id {bucket}
        update s3.put_bucket_tagging bucket tagSet=Tagging
        delete s3.delete_bucket bucket
        computed arn
        replaces bucket""", derive=derive_bucket, read=read_bucket, named="bucket"),
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": of_bucket(
        *("bucket_lifecycle_configuration", "LifecycleConfiguration"),
        lambda props: {"rules": props["rules"]},
        "delete_bucket_lifecycle",
    ),
    "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration": of_bucket(
        *("object_lock_configuration", "ObjectLockConfiguration"),
        lambda props: {"objectLockEnabled": "Enabled", "rule": props["rule"]},
        "put_object_lock_configuration no_rule=ObjectLockConfiguration",
    ),
    "aws:s3/bucketPolicy:BucketPolicy": of_bucket(
        "bucket_policy", "Policy", lambda props: props["policy"], "delete_bucket_policy"
    ),
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": of_bucket(
        *("public_access_block", "PublicAccessBlockConfiguration"), public_access, "delete_public_access_block"
    ),
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": of_bucket(
        *("bucket_encryption", "ServerSideEncryptionConfiguration"),
        lambda props: {"rules": props["rules"]},
        "delete_bucket_encryption",
    ),
    "aws:s3/bucketVersioning:BucketVersioning": of_bucket(
        *("bucket_versioning", "VersioningConfiguration"), lambda props: props["versioningConfiguration"]
    ),
    "aws:ssm/parameter:Parameter": table("""
        create ssm.put_parameter name type tier keyId value insecureValue=Value tagList=Tags
        id {name}
        update ssm.put_parameter name type tier keyId value insecureValue=Value yes=Overwrite
        delete ssm.delete_parameter id=Name
        computed arn version
        replaces name""", read=read_parameter, secret=("value",)),
    "aws:cloudwatch/metricAlarm:MetricAlarm": table(f"""
        create cloudwatch.put_metric_alarm {ALARM} tagList=Tags
        id {{name}}
        read cloudwatch.describe_alarms:MetricAlarms id=AlarmNames[]
        update cloudwatch.put_metric_alarm {ALARM}
        delete cloudwatch.delete_alarms id=AlarmNames[]
        computed arn=AlarmArn
        replaces name""", derive=derive_alarm),
    "aws:cloudwatch/logGroup:LogGroup": table("""
        create logs.create_log_group name=logGroupName kmsKeyId=kmsKeyId tags=tags
        create logs.put_retention_policy name=logGroupName retentionInDays=retentionInDays
        id {name}
        update logs.put_retention_policy name=logGroupName retentionInDays=retentionInDays
        delete logs.delete_log_group name=logGroupName
        computed arn=arn
        replaces name""", read=read_log_group),
    "aws:route53/record:Record": table("""
        create route53.change_resource_record_sets zoneId=HostedZoneId CREATE=ChangeBatch
        id {zoneId}_{name}_{type}
        update route53.change_resource_record_sets zoneId=HostedZoneId UPSERT=ChangeBatch
        delete route53.change_resource_record_sets zoneId=HostedZoneId DELETE=ChangeBatch
        replaces zoneId name type""", derive=derive_record, read=read_record),
    "aws:eks/accessEntry:AccessEntry": table("""
        create eks.describe_cluster clusterName=name
        create iam.get_role role=RoleName
        id {clusterName}:{principalArn}
        replaces clusterName principalArn type""", derive=role_of("principalArn")),
    "aws:dlm/lifecyclePolicy:LifecyclePolicy": table("""
        create iam.get_role role=RoleName
        id policy-{role}""", derive=role_of("executionRoleArn")),
}  # fmt: skip


def get_cluster(args: Props) -> Props:
    try:
        (cluster,) = find("eks.describe_cluster:cluster name=name", args)
    except client("eks").exceptions.ResourceNotFoundException:
        # The real provider does not pass on what EKS says.
        raise LookupError(f"reading EKS Cluster ({args['name']}): couldn't find resource") from None
    return {
        **{key: cluster[key] for key in ("name", "arn", "endpoint")},
        "certificateAuthorities": [cluster["certificateAuthority"]],
        "vpcConfig": cluster["resourcesVpcConfig"],
        "accessConfigs": [cluster["accessConfig"]] if "accessConfig" in cluster else [],
    }


def get_subnet(args: Props) -> Props:
    (found,) = find("ec2.describe_subnets:Subnets id=SubnetIds[]", args)
    return {"tags": {}, **take(found, "id=SubnetId vpcId cidrBlock availabilityZone mapPublicIpOnLaunch")}


def get_route_table(args: Props) -> Props:
    (table,) = find("ec2.describe_route_tables:RouteTables routeTableId=RouteTableIds[]", args)
    empty = {"DestinationCidrBlock": "", "GatewayId": "", "SubnetId": ""}
    return {
        "routes": [take(empty | route, "cidrBlock=DestinationCidrBlock gatewayId") for route in table["Routes"]],
        "associations": [take(empty | made, "subnetId main") for made in table["Associations"]],
    }


def filtered(text: str, args: Props) -> list[Props]:
    vpc = [{"name": "vpc-id", "values": [args["vpcId"]]}] if "vpcId" in args else []
    return find(text, {}, Filters=[send(given, "name values") for given in [*vpc, *args.get("filters", [])]])


def get_volume(args: Props) -> Props:
    (found,) = filtered("ec2.describe_volumes:Volumes", args)
    return take({"SnapshotId": "", "KmsKeyId": "", **found}, "volumeId availabilityZone snapshotId kmsKeyId")


def ids(text: str, key: str) -> Derive:
    """A look-up of the ids of all that passes the filters."""
    return lambda args: {"ids": [found[key] for found in filtered(text, args)]}


def get_instances(args: Props) -> Props:
    filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in args["instanceTags"].items()]
    filters.append({"Name": "instance-state-name", "Values": args["instanceStateNames"]})
    reservations = find("ec2.describe_instances:Reservations", {}, Filters=filters)
    return {"ids": [instance["InstanceId"] for found in reservations for instance in found["Instances"]]}


def get_zone(args: Props) -> Props:
    zones = find("route53.list_hosted_zones:HostedZones", {})
    found = [zone["Id"].rpartition("/")[2] for zone in zones if zone["Name"].rstrip(".") == args["name"]]
    if len(found) != 1:
        raise LookupError(f"{len(found)} Route 53 zones are called {args['name']}")
    return {"zoneId": found[0], "arn": f"arn:aws:route53:::hostedzone/{found[0]}"}


def get_parameter(args: Props) -> Props:
    found = read_parameter(args["name"], {})
    return {**found, "insecureValue": found["value"]} if found["type"] != "SecureString" else found


FUNCTIONS = {
    "aws:ebs/getEbsVolumes:getEbsVolumes": ids("ec2.describe_volumes:Volumes", "VolumeId"),
    "aws:ebs/getVolume:getVolume": get_volume,
    "aws:ec2/getInstances:getInstances": get_instances,
    "aws:ec2/getRouteTable:getRouteTable": get_route_table,
    "aws:ec2/getRouteTables:getRouteTables": ids("ec2.describe_route_tables:RouteTables", "RouteTableId"),
    "aws:ec2/getSubnet:getSubnet": get_subnet,
    "aws:ec2/getSubnets:getSubnets": ids("ec2.describe_subnets:Subnets", "SubnetId"),
    "aws:eks/getCluster:getCluster": get_cluster,
    "aws:eks/getClusters:getClusters": lambda _: {"names": find("eks.list_clusters:clusters", {})},
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
