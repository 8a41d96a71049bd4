"""What to do after ``pulumi up``, with the names and addresses of the stack."""

from teleport_eks.access import EXAMPLE_TEAM, Bot
from teleport_eks.address import callback_url, sign_in_command, web_url
from teleport_eks.cluster import Site
from teleport_eks.cluster_access import aws_auth_command
from teleport_eks.errors import NAMESPACE, as_yaml
from teleport_eks.settings import Settings


def objects_directory(stack: str, suffix: str = "") -> str:
    """The directory for a cluster's objects if they are not applied, relative to the project's.

    ``suffix`` is a ``MappedCluster``'s. ``@``, which no stack's name has, keeps it apart from other stacks.
    """
    return f"cluster-objects/{stack}{suffix.replace('-', '@', 1)}"


def next_steps(settings: Settings, site: Site, stack: str, hostname: str, role_arn: str) -> str:
    """A numbered list of steps."""
    organizations = settings.organizations
    urls = f"homepage: {web_url(settings, hostname)}\ncallback: {callback_url(settings, hostname)}"
    steps = []
    for mapped in () if settings.apply_to_cluster else site.clusters:
        add = f"\n{aws_auth_command('add', role_arn, site.names, 'KUBECONFIG-FILE')}"
        directory = objects_directory(stack, mapped.suffix)
        steps.append(
            f"On a machine that reaches the API of {mapped.cluster.name}, apply the files that were written for it:\n"
            f"kubectl apply --recursive -f {directory}{add if mapped.access_mode == 'aws-auth' else ''}"
        )
    if not settings.github_client_id:
        owner = organizations[0] if organizations else "YOUR-ORGANIZATION"
        steps.append(
            "Create a GitHub OAuth app:\n"
            f"page:     https://github.com/organizations/{owner}/settings/applications/new\n"
            f"{urls}\n"
            "Then set its id and a client secret:\n"
            f"pulumi config set -s {stack} {NAMESPACE}:githubClientId CLIENT-ID\n"
            f"pulumi config set -s {stack} --secret {NAMESPACE}:githubClientSecret"
        )
    if not organizations:
        steps.append(f"Add a team to Pulumi.{stack}.yaml:\n{as_yaml(f'{NAMESPACE}:teams', [EXAMPLE_TEAM])}")
    if steps:
        steps.append(f"Apply it (the instance stays):\npulumi up -s {stack}")
    if settings.github_client_id:
        steps.append(
            f"Check that the GitHub OAuth app has these URLs (listenerMode and domainName change them):\n{urls}"
        )
    steps += [
        f"Approve the app for {organization}, otherwise Teleport cannot see its teams:\n"
        f"https://github.com/organizations/{organization}/settings/oauth_application_policy"
        for organization in organizations
    ]
    steps.append(
        "Sign in, and check who you are in the cluster (if listenerMode changed, run `tsh logout` first):\n"
        f"{sign_in_command(settings, hostname)}\n"
        f"tsh kube login {settings.cluster_name}\n"
        "kubectl auth whoami"
    )
    if len(settings.cluster_names) > 1:
        steps.append("The clusters behind this proxy:\ntsh kube ls")
    if bots := settings.roles_of(Bot):
        names = ", ".join(bot.bot for bot, _ in bots)
        steps.append(f"Give each workflow its bot's token, as docs/machines.md shows:\n{names}")
    return "\n".join(f"{number}. {step.replace(chr(10), chr(10) + '   ')}" for number, step in enumerate(steps, 1))
