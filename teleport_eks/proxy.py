"""A Teleport proxy in front of one EKS cluster, with all its parts."""

from dataclasses import dataclass
from functools import partial

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes

from teleport_eks.account_rules import with_account_rules
from teleport_eks.address import ProxyAddress, ProxyAddressArgs, callback_url, sign_in_command, web_url
from teleport_eks.alarms import NAMESPACE as METRICS
from teleport_eks.alarms import ProxyAlarms, ProxyAlarmsArgs
from teleport_eks.balancer import ProxyBalancer, ProxyBalancerArgs
from teleport_eks.cluster import MappedCluster, Site, endpoint_warning, kubeconfig, operators_kubeconfig
from teleport_eks.cluster_access import ClusterAccess, ClusterAccessArgs
from teleport_eks.credentials import Credentials
from teleport_eks.host import BootArgs, ProxyHost, ProxyHostArgs
from teleport_eks.host_group import ProxyHostGroup, ProxyHostGroupArgs
from teleport_eks.identity import ProxyIdentity, ProxyIdentityArgs
from teleport_eks.network import BETWEEN_HOSTS, ProxyNetwork, ProxyNetworkArgs, rules
from teleport_eks.next_steps import next_steps, objects_directory
from teleport_eks.recordings import ProxyRecordings, ProxyRecordingsArgs
from teleport_eks.settings import Settings
from teleport_eks.state import ProxyState, ProxyStateArgs
from teleport_eks.storage import ProxyStorage, ProxyStorageArgs
from teleport_eks.team_access import TeamAccess, TeamAccessArgs
from teleport_eks.userdata import HostConfig, render, revision


@dataclass(frozen=True)
class TeleportProxyArgs:
    """``stack`` is the proxy's name in the account. Its SSM parameters are ``/teleport-eks/<stack>/...``."""

    stack: str
    settings: Settings
    site: Site


class TeleportProxy(pulumi.ComponentResource):
    """Owns all parts of the proxy. It does not own the clusters, the VPC or the aws-auth maps."""

    outputs: dict[str, pulumi.Input]

    def __init__(self, name: str, args: TeleportProxyArgs, *, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("teleport-eks:index:TeleportProxy", name, None, with_account_rules(opts, args.settings))
        child = pulumi.ResourceOptions(parent=self)
        settings, cluster, subnet = args.settings, args.site.cluster, args.site.subnet
        additional = args.site.clusters[1:]
        invoke = pulumi.InvokeOptions(parent=self)
        zone = aws.route53.get_zone(name=settings.hosted_zone, opts=invoke) if settings.hosted_zone else None
        challenge_zone = None if settings.certificate_arn else zone
        parameters_path = logs_name = f"/teleport-eks/{args.stack}"
        subnets = [subnet, *args.site.more_subnets]

        for warning in settings.warnings():
            self._warn(warning)

        # One host keeps all on a volume. Several share tables, and a balancer is in front of them.
        storage = state = balancer = None
        if settings.topology == "ha":
            state = ProxyState(f"{name}-state", ProxyStateArgs(settings), opts=child)
            balancer = ProxyBalancer(
                f"{name}-balancer",
                ProxyBalancerArgs(settings, subnet.vpc_id, [each.id for each in subnets]),
                opts=child,
            )
        else:
            storage = ProxyStorage(
                f"{name}-storage",
                ProxyStorageArgs(
                    settings=settings,
                    stack=args.stack,
                    partition=cluster.partition,
                    availability_zone=subnet.availability_zone,
                ),
                opts=child,
            )
        address = ProxyAddress(
            f"{name}-address",
            ProxyAddressArgs(
                settings,
                hosted_zone_id=zone.zone_id if zone else None,
                balancer=(balancer.dns_name, balancer.zone_id) if balancer else None,
            ),
            opts=child,
        )
        for mapped in args.site.clusters:
            address.public_ip.apply(lambda ip, to=mapped.cluster: self._warn(endpoint_warning(args.site, to, ip)))
        recordings = []
        if settings.recordings_in_s3:
            recordings.append(ProxyRecordings(f"{name}-recordings", ProxyRecordingsArgs(settings), opts=child))
        identity = ProxyIdentity(
            f"{name}-identity",
            ProxyIdentityArgs(
                partition=cluster.partition,
                cluster_arn=cluster.arn,
                parameters_arn=cluster.arn_beside("ssm", f"parameter{parameters_path}"),
                hosted_zone_arn=challenge_zone.arn if challenge_zone else None,
                kms_key_arn=settings.kms_key_arn,
                log_group_arn=(
                    cluster.arn_beside("logs", f"log-group:{logs_name}") if settings.log_retention_days else None
                ),
                metrics_namespace=METRICS if settings.alarm_topic_arn else None,
                recordings_arn=recordings[0].bucket_arn if recordings else None,
                certificate_arn=settings.certificate_arn,
                state_arn=state.state_arn if state else None,
                events_arn=state.events_arn if state else None,
            ),
            opts=child,
        )
        logs = []
        if settings.log_retention_days:
            logs.append(
                aws.cloudwatch.LogGroup(
                    f"{name}-logs",
                    name=logs_name,
                    retention_in_days=settings.log_retention_days,
                    # The audit events here may be all that is left of a host that somebody broke into.
                    opts=pulumi.ResourceOptions(parent=self, protect=settings.protect),
                )
            )
        network = ProxyNetwork(
            f"{name}-network",
            ProxyNetworkArgs(
                vpc_id=subnet.vpc_id,
                cluster_security_group_ids={
                    mapped.suffix: mapped.cluster.security_group_id
                    for mapped in args.site.clusters
                    if args.site.is_beside(mapped.cluster)
                },
                rules=rules(
                    settings.client_cidrs,
                    settings.admin_cidrs,
                    http_challenge=zone is None,
                    listener_mode=settings.listener_mode,
                    balancer_cidrs=[each.cidr for each in subnets] if balancer else [],
                ),
                between_hosts=BETWEEN_HOSTS if balancer else {},
            ),
            opts=child,
        )
        accesses = [self._map(name, mapped, args, identity) for mapped in args.site.clusters]
        TeamAccess(
            f"{name}-teams",
            TeamAccessArgs(
                settings=settings,
                stack=args.stack,
                parameters_path=parameters_path,
                callback_url=address.hostname.apply(partial(callback_url, settings)),
                kubeconfigs={mapped.cluster.name: kubeconfig(mapped.cluster, Credentials()) for mapped in additional},
            ),
            opts=child,
        )

        configured = pulumi.Output.all(
            hostname=address.hostname,
            public_ip=address.public_ip.apply(lambda ip: ip or None),
            volume_id=storage.volume_id if storage else None,
            recordings_url=recordings[0].url if recordings else None,
            state_table=state.state_table if state else None,
            events_table=state.events_table if state else None,
        ).apply(
            lambda known: HostConfig(
                settings=settings,
                stack=args.stack,
                region=cluster.region,
                parameters_path=parameters_path,
                dns_zone_id=challenge_zone.zone_id if challenge_zone else None,
                **known,
            )
        )
        # Teleport connects to the cluster when it starts, so the mapping comes first. The name's record comes first
        # too, because resolvers remember that a name does not exist. The host may not create the log group, and
        # what guards the recordings comes before the first one.
        first = [accesses[0], address, *logs, *recordings, *([balancer] if balancer else [])]
        after_first = pulumi.ResourceOptions(parent=self, depends_on=first)
        boot = BootArgs(
            settings=settings,
            security_group_id=network.security_group_id,
            instance_profile=identity.instance_profile,
            user_data=configured.apply(render),
            hostname=address.hostname,
            revision=configured.apply(revision),
            region=cluster.region,
            credentials=args.site.credentials,
        )
        if storage:
            host = ProxyHost(
                f"{name}-host",
                ProxyHostArgs(
                    boot, subnet_id=subnet.id, allocation_id=address.allocation_id, volume_id=storage.volume_id
                ),
                opts=after_first,
            )
        else:
            host = ProxyHostGroup(
                f"{name}-hosts",
                ProxyHostGroupArgs(
                    boot,
                    subnet_ids=[each.id for each in subnets],
                    target_group_arns=balancer.target_group_arns if balancer else [],
                ),
                opts=after_first,
            )
        if settings.alarm_topic_arn:
            ProxyAlarms(
                f"{name}-alarms",
                ProxyAlarmsArgs(
                    topic_arn=settings.alarm_topic_arn,
                    stack=args.stack,
                    partition=cluster.partition,
                    region=cluster.region,
                    instance_id=host.instance_id if storage else None,
                ),
                # After the boot, so that no alarm goes off because of the first one.
                opts=pulumi.ResourceOptions(parent=self, depends_on=[host]),
            )

        self.outputs = {
            "hostname": address.hostname,
            "publicIp": address.public_ip,
            "webUrl": address.hostname.apply(partial(web_url, settings)),
            "githubHomepageUrl": address.hostname.apply(partial(web_url, settings)),
            "githubCallbackUrl": address.hostname.apply(partial(callback_url, settings)),
            "tshLogin": address.hostname.apply(partial(sign_in_command, settings)),
            "instanceId": host.instance_id,
            "roleArn": identity.role_arn,
            "securityGroupId": network.security_group_id,
            "accessMode": args.site.access_mode,
            **({"accessModes": {m.cluster.name: m.access_mode for m in args.site.clusters}} if additional else {}),
            "kubernetesGroup": args.site.names.group,
            "nextSteps": pulumi.Output.all(address.hostname, identity.role_arn).apply(
                lambda known: next_steps(settings, args.site, args.stack, *known)
            ),
            **({"recordingsBucket": recordings[0].bucket} if recordings else {}),
        }
        self.register_outputs(self.outputs)

    def _map(self, name: str, mapped: MappedCluster, args: TeleportProxyArgs, identity: ProxyIdentity) -> ClusterAccess:
        """Declares what the proxy has in one of the clusters."""
        settings, cluster = args.settings, mapped.cluster
        directory = objects_directory(args.stack, mapped.suffix)
        text = pulumi.Output.from_input(operators_kubeconfig(settings, cluster, args.site.credentials))
        kubeconfig_text = pulumi.Output.secret(text) if settings.kubeconfig else text
        provider = kubernetes.Provider(
            f"{name}-cluster{mapped.suffix}",
            # The provider takes a kubeconfig, to apply objects, or a directory, to write them to. Without a kubeconfig
            # it would use the KUBECONFIG of the person who runs Pulumi, so this one is empty and not None.
            kubeconfig=kubeconfig_text if settings.apply_to_cluster else "",
            # The objects stay if only the endpoint or the way to sign in changes. Pulumi replaces them if they go into
            # files or into another cluster.
            cluster_identifier=cluster.arn if settings.apply_to_cluster else directory,
            # So that a stack can be destroyed if its cluster was deleted or cannot be reached. The provider then warns
            # of each object that it leaves behind. None of them gives access once the proxy's role is deleted.
            delete_unreachable=True,
            # If somebody changed the proxy's own objects with kubectl, Pulumi changes them back without a conflict. An
            # object that existed before, and that is not in the stack, is still an error.
            enable_patch_force=True,
            render_yaml_to_directory=None if settings.apply_to_cluster else directory,
            opts=pulumi.ResourceOptions(parent=self),
        )
        return ClusterAccess(
            f"{name}-cluster-access{mapped.suffix}",
            ClusterAccessArgs(
                settings=settings,
                cluster_name=cluster.name,
                names=args.site.names,
                access_mode=mapped.access_mode,
                kubeconfig=kubeconfig_text,
                role_arn=identity.role_arn,
                role_unique_id=identity.role_unique_id,
                entry_lost_at=mapped.entry_lost_at,
            ),
            k8s_provider=provider,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _warn(self, text: str) -> None:
        if text:
            pulumi.log.warn(text, self)
