"""Waits until the proxy on a host works, or says where its boot stopped.

    python -m teleport_eks.ready --hostname NAME --instance-id ID --region REGION --minutes N --version V --revision R \
        --port P

With ``--group NAME --targets ARN`` instead of ``--instance-id ID``, it first waits until all instances of this Auto
Scaling group have its newest launch template, and are healthy targets of the load balancer.

Asks ``/webapi/find`` on port P, and prints every 15 seconds what it sees. (``/webapi/ping`` gives HTTP 400 until
there is a GitHub connector.) Exits 0 when Teleport V answers with a certificate that this machine trusts. Also exits 0
when it has answered for 3 minutes with one that this machine does not trust, because the host keeps trying to get one.
After an upgrade in place, the old release answers first; the program waits until the new one does.

The machine that runs Pulumi may be outside ``clientCidrs``. So while nothing answers, the program reads the host's
console too. At the end of a boot the host writes the revision of its configuration there. If that is R, and not the
report of an older boot, the program exits 0 with a warning.

After N minutes it exits 1 and prints what the host last wrote to its console.
"""

import argparse
import dataclasses
import functools
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any

ASK_EVERY = 5  # seconds
PRINT_EVERY = 15  # seconds
READ_CONSOLE_EVERY = 30  # seconds
CERTIFICATE_WITHIN = 180  # seconds that a certificate usually takes, from when the proxy first answers
TRUSTED, UNTRUSTED = "answers", "answers, with a certificate that is not trusted yet"
REPORTED = "does not answer here, but the host reports that it is up"


class UnreachableError(Exception):
    """Teleport does not answer. The text says why."""


def look(url: str, version: str) -> str:
    """TRUSTED, UNTRUSTED, or the name of another release that answers. Raises UnreachableError."""
    try:
        return _ask(url, ssl.create_default_context(), version) or TRUSTED
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLCertVerificationError):
            raise UnreachableError(error.reason) from error
    except (OSError, ValueError) as error:
        raise UnreachableError(error) from error
    anything = ssl.create_default_context()
    anything.check_hostname, anything.verify_mode = False, ssl.CERT_NONE
    try:
        return _ask(url, anything, version) or UNTRUSTED
    except (OSError, ValueError) as error:
        raise UnreachableError(error) from error


def _ask(url: str, context: ssl.SSLContext, version: str) -> str:
    """Empty if Teleport ``version`` answers, else what answers instead."""
    with urllib.request.urlopen(url, timeout=10, context=context) as response:  # noqa: S310 - it is always https
        answer = json.load(response)
    found = answer.get("server_version") if isinstance(answer, dict) else None
    if not found:
        raise ValueError("what answers is not Teleport")
    return "" if found == version else f"answers, but Teleport {found} is still running there, not {version}"


def wait(url: str, version: str, minutes: float, reported: Callable[[], bool]) -> Iterator[tuple[float, str]]:
    """Yields seconds since the start, and the state at that time, until the proxy works or the time is over.

    ``reported`` is whether the host says on its console that it is up.
    """
    began = time.monotonic()
    answered_at, read_at = None, 0.0
    while True:
        reachable = True
        try:
            state = look(url, version)
        except UnreachableError as error:
            state, reachable = str(error), False
        seconds = time.monotonic() - began
        if not reachable and seconds - read_at > READ_CONSOLE_EVERY:
            read_at = seconds
            state = REPORTED if reported() else state
        yield seconds, state
        if state == UNTRUSTED and answered_at is None:
            answered_at = seconds
        waited_for_certificate = answered_at is not None and seconds - answered_at > CERTIFICATE_WITHIN
        good = state in (TRUSTED, REPORTED) or (state == UNTRUSTED and waited_for_certificate)
        if good or seconds > minutes * 60:
            return
        time.sleep(ASK_EVERY)


class AwsError(Exception):
    """The AWS CLI does not answer. The text says why."""


Aws = Callable[..., str]  # the AWS CLI: its arguments, and what it prints


def console(aws: Aws, instance_id: str) -> list[str]:
    """The lines that the host's units wrote to its console: the steps of its boots, the newest last."""
    what = ("--latest", "--query", "Output", "--output", "text", "--instance-id", instance_id)
    output = aws("ec2", "get-console-output", *what)
    return [line[line.index("teleport-eks: ") :] for line in output.splitlines() if "teleport-eks: " in line]


@dataclasses.dataclass(frozen=True)
class Group:
    """An Auto Scaling group: its instances, whether all of them are new and healthy, and that in words."""

    ids: Sequence[str] = ()
    is_up: bool = False
    state: str = ""

    def __str__(self) -> str:
        return self.state


def look_at_group(aws: Aws, name: str, targets: str) -> Group:
    query = ("--auto-scaling-group-names", name, "--query", "AutoScalingGroups[0]", "--output", "json")
    found = json.loads(aws("autoscaling", "describe-auto-scaling-groups", *query))
    query = ("--target-group-arn", targets, "--query", "TargetHealthDescriptions", "--output", "json")
    states = json.loads(aws("elbv2", "describe-target-health", *query))
    healthy = {each["Target"]["Id"] for each in states if each["TargetHealth"]["State"] == "healthy"}
    newest, wanted, instances = found["LaunchTemplate"]["Version"], found["DesiredCapacity"], found["Instances"]
    good = [
        each
        for each in instances
        if each["InstanceId"] in healthy and each.get("LaunchTemplate", {}).get("Version") == newest
    ]
    return Group(
        [each["InstanceId"] for each in instances],
        len(good) == len(instances) == wanted,
        f"{len(good)} of {wanted} hosts are new and healthy",
    )


def wait_for_group(aws: Aws, name: str, targets: str, minutes: float) -> Iterator[tuple[float, Group]]:
    """Yields seconds since the start, and the group at that time, until it is up or the time is over."""
    began, group = time.monotonic(), Group()
    while True:
        try:
            group = look_at_group(aws, name, targets)
        except AwsError as error:
            group = dataclasses.replace(group, is_up=False, state=f"could not look at {name}: {error}")
        seconds = time.monotonic() - began
        yield seconds, group
        if group.is_up or seconds > minutes * 60:
            return
        time.sleep(ASK_EVERY)


def follow(states: Iterator[tuple[float, Any]], prefix: str = "") -> Any:
    """Prints a state every ``PRINT_EVERY`` seconds. Returns the last one."""
    state, next_line = None, 0.0
    for seconds, state in states:
        if seconds >= next_line:
            print(f"{seconds:4.0f} s  {prefix}{state}", flush=True)
            next_line = seconds + PRINT_EVERY
    return state


def signed_in(region: str, profile: str | None, role_arn: str | None, *command: str) -> str:
    """The AWS CLI's output, with the stack's credentials."""
    keys = {}
    chosen = ("--profile", profile) if profile else ()
    if role_arn:
        session = ("--role-arn", role_arn, "--role-session-name", "teleport-eks")
        found = json.loads(_aws("sts", "assume-role", *session, "--region", region, "--output", "json", *chosen))
        names = {
            "AccessKeyId": "ACCESS_KEY_ID",
            "SecretAccessKey": "SECRET_ACCESS_KEY",
            "SessionToken": "SESSION_TOKEN",
        }
        keys = {f"AWS_{name}": found["Credentials"][key] for key, name in names.items()}
        chosen = ()
    return _aws(*command, "--region", region, *chosen, **keys)


def _aws(*arguments: str, **environment: str) -> str:
    try:
        done = subprocess.run(
            ["aws", *arguments], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AwsError(error) from error
    if done.returncode:
        raise AwsError(done.stderr.strip())
    return done.stdout


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m teleport_eks.ready")
    parser.add_argument("--hostname", required=True)
    hosts = parser.add_mutually_exclusive_group(required=True)
    hosts.add_argument("--instance-id")
    hosts.add_argument("--group", help="the Auto Scaling group of several hosts")
    parser.add_argument("--targets", help="with --group: the ARN of a target group of theirs")
    parser.add_argument("--region", required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--version", required=True, help="the Teleport release that must answer")
    parser.add_argument("--revision", required=True, help="the revision that the host must report on its console")
    parser.add_argument("--profile", help="of the AWS CLI, to read the console with")
    parser.add_argument("--role-arn", help="a role to assume for that")
    parser.add_argument("--port", type=int, required=True, help="of the web page")
    args = parser.parse_args(argv)

    aws = functools.partial(signed_in, args.region, args.profile, args.role_arn)
    ids: Sequence[str] = [args.instance_id]
    if args.group:
        group: Group = follow(wait_for_group(aws, args.group, args.targets, args.minutes))
        ids = group.ids
        if not group.is_up:
            return _not_up(args, aws, ids, group.state)

    def reported() -> bool:
        if args.group:
            return True
        try:
            lines = console(aws, args.instance_id)
        except AwsError:
            return False
        return any(line.rstrip().endswith(f"step end: done, revision {args.revision}") for line in lines)

    url = f"https://{args.hostname}:{args.port}/webapi/find"
    state = follow(wait(url, args.version, args.minutes, reported), f"{url}: ")
    if state == TRUSTED:
        print(f"{args.hostname} {state}")
        return 0
    session = _session(args, ids[0])
    if state == UNTRUSTED:
        print(f"{args.hostname} {state}. The host keeps trying; to see why:\n  {session}")
        print("  systemctl status teleport-certificate")
        return 0
    if state == REPORTED:
        print(
            f"warning: {args.hostname} {state}. If this machine is not in clientCidrs, that is as intended; "
            f"otherwise a firewall on the way blocks port {args.port}.",
            file=sys.stderr,
        )
        return 0
    return _not_up(args, aws, ids, state)


def _session(args: argparse.Namespace, instance_id: str) -> str:
    return f"aws ssm start-session --region {args.region} --target {instance_id}"


def _not_up(args: argparse.Namespace, aws: Aws, ids: Sequence[str], state: str) -> int:
    """Says what each host last wrote to its console."""
    print(f"{args.hostname} is not up after {args.minutes:g} minutes: {state}.", file=sys.stderr)
    for instance_id in ids:
        try:
            end = "\n".join(console(aws, instance_id)[-8:]) or "(it has not written anything to its console yet)"
        except AwsError as error:
            end = f"could not read its console: {error}"
        print(f"The end of the console of {instance_id}:\n{end}", file=sys.stderr)
        print(f"To look closer:\n  {_session(args, instance_id)}", file=sys.stderr)
        print("  journalctl -u teleport-bootstrap -u teleport", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
