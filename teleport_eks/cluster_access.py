"""The proxy's permissions in the cluster, and the mapping from its IAM role to a Kubernetes group."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_command as command
import pulumi_kubernetes as kubernetes
import yaml
from pulumi_kubernetes.rbac import v1 as rbac

from teleport_eks.access import Access
from teleport_eks.commands import run_module
from teleport_eks.settings import Settings
from teleport_eks.team_access import SHARED_USER

ROLE_ID_TAG = "teleport-eks/role-id"


@dataclass(frozen=True)
class Names:
    """The proxy's names in the cluster, the same as in the guide of 2019, so that people find them.

    ``suffix``, for example ``-blue``, is for a second proxy in the same cluster.
    """

    suffix: str = ""

    @property
    def cluster_role(self) -> str:
        return f"teleport-impersonation{self.suffix}"

    @property
    def binding(self) -> str:
        return f"teleport-crb{self.suffix}"

    @property
    def group(self) -> str:
        return f"teleport-group{self.suffix}"

    @property
    def username(self) -> str:
        return f"teleport{self.suffix}"

    def binding_of(self, access: Access) -> str:
        return f"teleport-{access.name}{self.suffix}"


def impersonation_rules(granted: Sequence[Access], kubernetes_identity: str) -> list[Any]:
    """All that the proxy may do in the cluster: impersonate the groups of the teams and bots, and nobody else.

    Without resourceNames, it could impersonate the group system:masters and the control plane's users, which are as
    powerful. So both are limited, and service accounts are left out. ``person`` lifts the limit on users, because
    GitHub logins are not known beforehand.
    """
    groups = sorted({group for access in granted for group in access.kubernetes_groups} | {"system:authenticated"})
    users: dict[str, Any] = {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"]}
    if kubernetes_identity == "shared":
        users["resourceNames"] = [SHARED_USER]
    return [
        {"apiGroups": [""], "resources": ["groups"], "verbs": ["impersonate"], "resourceNames": groups},
        users,
        # Teleport's own requests: its health check, and what a person may do.
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
        {
            "apiGroups": ["authorization.k8s.io"],
            "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            "verbs": ["create"],
        },
    ]


def impersonators(group: str, allow_anonymous: bool) -> list[Any]:
    """The subjects that the impersonation role is bound to."""
    return [_rbac("Group", group), *([_rbac("User", "system:anonymous")] if allow_anonymous else [])]


def _rbac(kind: str, name: str) -> Any:
    """A subject or a role, in the form that bindings use."""
    return {"kind": kind, "name": name, "apiGroup": "rbac.authorization.k8s.io"}


def aws_auth_command(verb: str, role_arn: str, names: Names, kubeconfig: str = "/dev/stdin") -> str:
    """``teleport_eks.aws_auth`` as a shell command. It reads the kubeconfig, which can hold secrets, from its input."""
    identity = {"--role-arn": role_arn, "--username": names.username, "--group": names.group}
    options = {"--kubeconfig": kubeconfig, **identity}
    return run_module("teleport_eks.aws_auth", verb, options=options)


def entry_lost_at(kubeconfig: str, names: Names) -> str:
    """The version of aws-auth if it maps no role to the proxy's user and group; empty if it does.

    Only a changed input makes Pulumi show and run a command again. This version is such an input, so a preview shows
    that somebody removed the entry. A cluster that does not answer is no error, because a preview can do without it.
    """
    if not yaml.safe_load(kubeconfig)["clusters"]:
        return ""  # it names no cluster to ask, as in a preview on stand-ins
    # Here, because a stack with access entries does not need it, and importing the Kubernetes client takes time.
    from teleport_eks.aws_auth import configmap

    try:
        client = configmap.connect(io.StringIO(kubeconfig))
        found = configmap.send(client, "GET", fieldSelector=f"metadata.name={configmap.NAME}")
        maps = found["items"]
        if maps and configmap.has(maps[0].get("data") or {}, names.username, names.group):
            return ""
    except Exception as error:
        pulumi.log.warn(f"Could not read aws-auth; skipped the drift check: {error}")
        return ""
    return (maps[0] if maps else found)["metadata"]["resourceVersion"]


@dataclass(frozen=True)
class ClusterAccessArgs:
    """``access_mode`` is access-entry or aws-auth; ``kubeconfig`` is the text of one that reaches the cluster."""

    settings: Settings
    cluster_name: str
    names: Names
    access_mode: str
    kubeconfig: pulumi.Input[str]
    role_arn: pulumi.Input[str]
    role_unique_id: pulumi.Input[str]
    entry_lost_at: str


class ClusterAccess(pulumi.ComponentResource):
    """Owns the impersonation role, its binding, those of teams and bots, and the mapping of the IAM role to a group.

    The mapping is an access entry, or one item of aws-auth's ``mapRoles``. Others use that map too, so nothing else in
    it changes. The cluster owns the roles that they are bound to, and the namespaces.
    """

    def __init__(
        self,
        name: str,
        args: ClusterAccessArgs,
        *,
        k8s_provider: kubernetes.Provider,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("teleport-eks:index:ClusterAccess", name, None, opts)
        in_cluster = pulumi.ResourceOptions(parent=self, provider=k8s_provider)
        settings, granted = args.settings, args.settings.granted_in(args.cluster_name)

        rbac.ClusterRole(
            f"{name}-impersonation",
            metadata={"name": args.names.cluster_role},
            rules=impersonation_rules(granted, settings.kubernetes_identity),
            opts=in_cluster,
        )
        rbac.ClusterRoleBinding(
            f"{name}-impersonators",
            metadata={"name": args.names.binding},
            role_ref=_rbac("ClusterRole", args.names.cluster_role),
            subjects=impersonators(args.names.group, settings.allow_anonymous_impersonation),
            opts=in_cluster,
        )
        for access in granted:
            _bind(f"{name}-{access.name}", args.names.binding_of(access), access, in_cluster)

        if args.access_mode == "access-entry":
            aws.eks.AccessEntry(
                f"{name}-access-entry",
                cluster_name=args.cluster_name,
                principal_arn=args.role_arn,
                kubernetes_groups=[args.names.group],
                user_name=args.names.username,
                # EKS stores the role's unique id, so an entry for an earlier role of the same name does not work.
                tags={ROLE_ID_TAG: args.role_unique_id},
                opts=pulumi.ResourceOptions(
                    parent=self, delete_before_replace=True, replace_on_changes=[f'tags["{ROLE_ID_TAG}"]']
                ),
            )
        elif settings.apply_to_cluster:
            role_arn = pulumi.Output.from_input(args.role_arn)
            add = role_arn.apply(lambda arn: aws_auth_command("add", arn, args.names))
            command.local.Command(
                f"{name}-aws-auth",
                create=add,
                update=add,
                # So that a stack can be destroyed after its cluster.
                delete=role_arn.apply(lambda arn: f"{aws_auth_command('remove', arn, args.names)} --unreachable-ok"),
                stdin=args.kubeconfig,
                # Another role gets another item: the new one is added, then the old one is removed.
                triggers=[role_arn],
                # The command does not read this, see entry_lost_at. If the entry is there, the value of an earlier run
                # stays, so that it is no change.
                environment={"ENTRY_LOST_AT": args.entry_lost_at},
                opts=pulumi.ResourceOptions(parent=self, ignore_changes=[] if args.entry_lost_at else ["environment"]),
            )

        self.register_outputs({"accessMode": args.access_mode, "kubernetesGroup": args.names.group})


def _bind(name: str, name_in_cluster: str, access: Access, opts: pulumi.ResourceOptions) -> None:
    """Gives the groups their role: in the namespaces, or in the whole cluster if there are none."""
    if not access.cluster_role:
        return
    role = _rbac("ClusterRole", access.cluster_role)
    subjects = [_rbac("Group", group) for group in access.kubernetes_groups]
    if not access.namespaces:
        rbac.ClusterRoleBinding(name, metadata={"name": name_in_cluster}, role_ref=role, subjects=subjects, opts=opts)
    for namespace in access.namespaces:
        metadata: Any = {"name": name_in_cluster, "namespace": namespace}
        rbac.RoleBinding(f"{name}-{namespace}", metadata=metadata, role_ref=role, subjects=subjects, opts=opts)
