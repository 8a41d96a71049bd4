"""Which people have access now: the stack's file beside SSM, and beside what Teleport has on the host. Only reads."""

import base64
import contextlib
import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

from sandbox.engine import NOT_DECRYPTED, ROOT, configuration
from teleport_eks.access import Bot
from teleport_eks.credentials import credentials
from teleport_eks.errors import NAMESPACE, ConfigurationError
from teleport_eks.settings import Settings, parse
from teleport_eks.team_access import role

Role = dict[str, Any] | None
BY_HAND = "not from the stack: made with tctl"
IN_TELEPORT = "in Teleport: see `systemctl status teleport-access` on the host"
COMMAND = f"/usr/bin/python3 - <<'END'\n{(Path(__file__).parent / 'on_host.py').read_text()}END"
NEEDED = (
    "your AWS role needs ssm:SendCommand on the instance and on the document AWS-RunShellScript, and "
    'ssm:GetCommandInvocation; see "Which people have access now" in docs/operations.md'
)


class NotAnsweredError(Exception):
    """The host did not say what Teleport has. The text says why."""


def who(stack: str, *, as_json: bool) -> bool:
    """Prints the report; False if it lacks Teleport's side."""
    config = configuration(stack)
    settings, session = _settings(config, stack), _session(config)
    outputs = _outputs(stack)
    ssm = session.client("ssm")
    try:
        stored = parameters(ssm, stack)
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"cannot read what the stack wrote to SSM: {error}")
    host, problem = None, ""
    try:
        # If there are several hosts, each of them knows all.
        host = ask(ssm, (outputs.get("instanceId") or "").partition(",")[0])
    except (BotoCoreError, NotAnsweredError) as error:
        problem = f"Teleport was not asked: {error}"
    head = {"stack": stack, "hostname": outputs.get("hostname"), "problem": problem}
    found = head | report(settings, stack, stored, host)
    print(json.dumps(found, indent=2) if as_json else text(found))
    return host is not None


# ---------------------------------------------------------------------------------------------------- the three sources


def _settings(config: Mapping[str, Any], stack: str) -> Settings:
    """The stack's file. Secrets stay encrypted, because nothing here needs one."""
    keys = {key.removeprefix(f"{NAMESPACE}:"): value for key, value in config.items() if key.startswith(NAMESPACE)}
    keys.pop("kubeconfig", None)
    try:
        return parse({k: NOT_DECRYPTED if isinstance(v, dict) else v for k, v in keys.items()}, stack)
    except ConfigurationError as error:
        sys.exit(str(error))


def _session(config: Mapping[str, Any]) -> boto3.Session:
    """With the credentials that the stack's file names, as the program uses them."""
    keys = {key.removeprefix("aws:"): value for key, value in config.items() if key.startswith("aws:")}
    chosen, problems = credentials({k: v if isinstance(v, str) else json.dumps(v) for k, v in keys.items()})
    if problems:
        sys.exit(str(problems[0]))
    region = keys.get("region")
    try:
        session = boto3.Session(profile_name=chosen.profile, region_name=region)
        if not chosen.role_arn:
            return session
        sts = session.client("sts")
        given = sts.assume_role(RoleArn=chosen.role_arn, RoleSessionName="teleport-eks")["Credentials"]
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"cannot use the credentials of Pulumi.*.yaml: {error}")
    return boto3.Session(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], region)


def _outputs(stack: str) -> dict[str, Any]:
    command = ["pulumi", "stack", "output", "--json", "--stack", stack]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip())
    return json.loads(done.stdout)


def parameters(ssm: Any, stack: str) -> dict[str, Any]:
    """What the stack wrote for the host: roles by name, the connector's mapping, and the bots' roles. Nothing is
    decrypted.
    """
    path = f"/{NAMESPACE}/{stack}"
    pages = ssm.get_paginator("get_parameters_by_path").paginate(Path=path, Recursive=True)
    texts = {p["Name"].removeprefix(f"{path}/"): p["Value"] for page in pages for p in page["Parameters"]}
    connector = json.loads(texts.get("github-connector", '{"spec": {"teams_to_roles": []}}'))

    def below(folder: str) -> dict[str, Any]:
        return {name.removeprefix(folder): json.loads(t) for name, t in texts.items() if name.startswith(folder)}

    bots = {name: item["spec"]["roles"] for name, item in below("bots/").items()}
    return {"roles": below("roles/"), "mappings": connector["spec"]["teams_to_roles"], "bots": bots}


def ask(ssm: Any, instance: str) -> dict[str, Any]:
    """What ``on_host.py`` says. Raises NotAnsweredError."""
    if not instance:
        raise NotAnsweredError("the stack has no instance yet; run `pulumi up`")
    try:
        sent = ssm.send_command(
            InstanceIds=[instance],
            DocumentName="AWS-RunShellScript",
            Comment="teleport-eks: which people have access",
            TimeoutSeconds=30,  # to reach the host
            Parameters={"commands": [COMMAND], "executionTimeout": ["60"]},
        )
        which = {"CommandId": sent["Command"]["CommandId"], "InstanceId": instance}
        with contextlib.suppress(WaiterError):  # the status below says the same, and why
            ssm.get_waiter("command_executed").wait(**which, WaiterConfig={"Delay": 2, "MaxAttempts": 50})
        answer = ssm.get_command_invocation(**which)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        reason = {
            "AccessDeniedException": NEEDED,
            "InvalidInstanceId": f"no host answers for {instance}. It is stopped or still boots, or Session Manager's "
            "agent does not run there. In the sandbox no instance boots",
        }
        raise NotAnsweredError(f"{reason.get(code, error)}.") from error
    if answer["Status"] != "Success":
        said = answer.get("StandardErrorContent", "").strip()
        raise NotAnsweredError(f"the command on {instance} ended with {answer['StatusDetails']}. {said[-400:]}")
    return read(answer["StandardOutputContent"])


def read(answer: str) -> dict[str, Any]:
    try:
        return json.loads(gzip.decompress(base64.b64decode(answer)))
    except (ValueError, EOFError, OSError):
        raise NotAnsweredError(
            "its answer is longer than the 24,000 characters that Session Manager returns."
        ) from None


# ----------------------------------------------------------------------------------------------------------- the report


def report(settings: Settings, stack: str, stored: Mapping[str, Any], host: Mapping[str, Any] | None) -> dict[str, Any]:
    """All that is known. ``people`` and ``locks`` are None if the host was not asked."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    declared = {grant.role: grant.access for grant in settings.grants}
    wanted = {grant.role: role(grant, settings, stack) for grant in settings.grants}
    applied = {item["name"]: item["allow"] for item in host["roles"]} if host else {}
    by_ssm = _mapped(stored["mappings"])
    by_teleport = _mapped(host["mappings"]) if host else by_ssm

    def line(name: str) -> dict[str, Any]:
        in_file, in_ssm, in_teleport = wanted.get(name), stored["roles"].get(name), applied.get(name)
        allow = (
            in_teleport if in_teleport is not None else (in_ssm or in_file or {"spec": {"allow": {}}})["spec"]["allow"]
        )
        file = declared.get(name)
        return {
            "role": name,
            "clusters": _clusters(allow, settings),
            "kubernetesGroups": allow.get("kubernetes_groups", []),
            # What the file says: neither SSM nor Teleport know of these two.
            "clusterRole": file.cluster_role if file else None,
            "namespaces": list(file.namespaces) if file else [],
            "logins": allow.get("logins", []),
            "auditor": any("session" in rule["resources"] for rule in allow.get("rules", ())),
            "state": _state(in_file, in_ssm, in_teleport, asked=host is not None),
        }

    def team(name: str) -> dict[str, Any]:
        row, file = line(name), declared.get(name)
        if by_ssm.get(name) != by_teleport.get(name):
            row["state"] += f"; Teleport gives it to {', '.join(by_teleport.get(name, ())) or 'nobody who signs in'}"
        elif name in stored["roles"] and name not in by_ssm:
            row["state"] += "; nobody can sign in until there is a GitHub connector"
        return {"team": file.on_github if file else ", ".join(by_ssm.get(name, by_teleport.get(name, []))), **row}

    files = {bot.bot: (bot, roles) for bot, roles in settings.roles_of(Bot)}
    given = {item["bot"]: item["roles"] for item in host["bots"]} if host else stored["bots"]

    def bot(name: str) -> list[dict[str, Any]]:
        """A bot, once for each of its roles."""
        (file, in_file), in_ssm = files.get(name, (None, [])), stored["bots"].get(name)
        roles = given.get(name) or in_ssm or in_file
        rows = []
        for row in map(line, roles):
            del row["logins"], row["auditor"]  # no bot has these
            if not file and not in_ssm:
                row["state"] = BY_HAND
            elif row["state"] == "applied" and given.get(name) != in_ssm:
                row["state"] = f"is another one {IN_TELEPORT}"
            rows.append({"bot": name, "jobs": file.on_github if file else None, **row})
        return rows

    of_bots = {name for roles in stored["bots"].values() for name in roles}
    of_bots |= {name for _, roles in files.values() for name in roles}
    names = sorted({*wanted, *stored["roles"], *applied, *by_ssm, *by_teleport} - of_bots)
    bots = [row for name in sorted({*files, *stored["bots"], *given}) for row in bot(name)]
    found: dict[str, Any] = {"time": now, "teams": [team(name) for name in names]}
    if not host:
        return found | {"people": None, "locks": None, "bots": bots}
    # Teleport still lists a lock that has ended.
    locks = [lock for lock in host["locks"] if not lock["until"] or lock["until"] > now]
    people = [person | {"state": _person(person, applied, locks)} for person in host["people"]]
    ended = sorted(host["ended"].items(), key=lambda item: item[1], reverse=True)
    people += [
        {"person": name, "roles": [], "signedIn": time, "until": None, "state": "sign-in has ended"}
        for name, time in ended
    ]
    return found | {"people": people, "locks": locks, "bots": bots}


def _clusters(allow: Mapping[str, Any], settings: Settings) -> list[str]:
    """The clusters that a role of ``team_access.role`` is for; a role made by hand may say it in another way."""
    if expression := allow.get("kubernetes_labels_expression"):
        named = re.findall(r'labels\["cluster"\] == "([^"]*)"', expression)
        return [name or settings.cluster_name for name in named] or [expression]
    return list(settings.cluster_names) if allow.get("kubernetes_labels") else []


def _mapped(mappings: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The teams whose members get a role when they sign in, by role."""
    teams: dict[str, list[str]] = {}
    for item in mappings:
        for name in item["roles"]:
            teams.setdefault(name, []).append(f"{item['organization']}/{item['team']}")
    return {name: sorted(listed) for name, listed in teams.items()}


def _state(in_file: Role, in_ssm: Role, in_teleport: Role, *, asked: bool) -> str:
    """How far a role is on its way from the file to SSM to Teleport, which has what it allows."""
    if in_file != in_ssm:
        what = "differs from" if in_file and in_ssm else "is only in" if in_file else "is not in"
        return f"{what} the stack's file: run `pulumi up`"
    if not asked:
        return "in the file and in SSM"
    if in_ssm and in_teleport == in_ssm["spec"]["allow"]:
        return "applied"
    if in_ssm:
        what = "is not" if in_teleport is None else "is another one"
        return f"{what} {IN_TELEPORT}"
    return "removed: allows nothing" if in_teleport == {} else BY_HAND


def _person(person: Mapping[str, Any], applied: Mapping[str, Any], locks: Iterable[Mapping[str, Any]]) -> str:
    for lock in locks:
        if lock["target"].get("user") == person["person"] or lock["target"].get("role") in person["roles"]:
            return f"locked: {lock['message'] or lock['lock']}"
    return (
        "no access: no role allows anything" if all(applied.get(r) == {} for r in person["roles"]) else person["state"]
    )


def text(found: Mapping[str, Any]) -> str:
    """As tables."""
    tables = [_table(found[kind] or []) for kind in ("teams", "people", "locks", "bots")]
    head = f"{found['stack']}: {found['hostname'] or 'no proxy yet'}, at {found['time']}"
    return "\n\n".join(part for part in (head, found["problem"], *tables) if part)


def _table(items: Sequence[Mapping[str, Any]]) -> str:
    if not items:
        return ""
    cells = [[re.sub("(?=[A-Z])", " ", key).upper() for key in items[0]]]
    cells += [[_cell(value) for value in item.values()] for item in items]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        value = [f"{key} {item}" for key, item in value.items()]
    return "yes" if value is True else (", ".join(value) if isinstance(value, list) else value) or "-"
