"""Waits until a host is a working proxy, or says where its boot stopped.

    python -m components.ready --hostname NAME --instance-id ID --region REGION --minutes N --version V --revision R

Asks ``https://NAME:3080/webapi/find``, and says every quarter of a minute what it sees. (``/webapi/ping`` is HTTP 400
until there is a GitHub connector.) Exit 0 as soon as Teleport V answers with a certificate that this machine trusts, or
when it has answered for a while with one that it does not: the host goes on trying to get one. After an upgrade in
place, the release before it answers first, and is waited out.

Not every machine that runs Pulumi may reach port 3080: ``clientCidrs`` can be an office's. So while nothing answers,
the host's console is read too. At the end of a boot the host writes the revision of its configuration there; if it is
R, that is proof as well, and an older boot's report is not taken for it. Exit 0 then, with a warning.

Exit 1 after N minutes, with what the host last wrote to its console.
"""

import argparse
import functools
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

from components.ports import Port

EVERY = 5  # seconds between two questions
TELL_EVERY = 15  # seconds between two lines
CONSOLE_EVERY = 30  # seconds between two looks at the console
CERTIFICATE_WITHIN = 180  # seconds that a certificate usually takes, from when the proxy first answers
TRUSTED, UNTRUSTED = "answers", "answers, with a certificate that is not trusted yet"
REPORTED = "does not answer here, but the host reports that it is up"


class UnreachableError(Exception):
    """Nothing that could be Teleport answers; the text says why."""


def look(url: str, version: str) -> str:
    """What the proxy is like now: TRUSTED, UNTRUSTED, or which other release answers. Raises UnreachableError."""
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
    """Empty if Teleport ``version`` answers, else what does."""
    with urllib.request.urlopen(url, timeout=10, context=context) as response:  # noqa: S310 - it is always https
        answer = json.load(response)
    found = answer.get("server_version") if isinstance(answer, dict) else None
    if not found:
        raise ValueError("what answers is not Teleport")
    return "" if found == version else f"answers, but Teleport {found} is still running there, not {version}"


def wait(url: str, version: str, minutes: float, reported: Callable[[], bool]) -> Iterator[tuple[float, str]]:
    """What is seen, with the seconds since the beginning, until it is good enough or the time is over.

    ``reported`` tells whether the host says on its console that it is up.
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
        if not reachable and seconds - read_at > CONSOLE_EVERY:
            read_at = seconds
            state = REPORTED if reported() else state
        yield seconds, state
        if state == UNTRUSTED and answered_at is None:
            answered_at = seconds
        waited_for_certificate = answered_at is not None and seconds - answered_at > CERTIFICATE_WITHIN
        good = state in (TRUSTED, REPORTED) or (state == UNTRUSTED and waited_for_certificate)
        if good or seconds > minutes * 60:
            return
        time.sleep(EVERY)


class ConsoleError(Exception):
    """The console could not be read; the text says why."""


def console(instance_id: str, region: str, profile: str | None, role_arn: str | None) -> list[str]:
    """What the host's units said on its console: the steps of its boots, the newest last."""
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
    what = ("--latest", "--query", "Output", "--output", "text", "--instance-id", instance_id, "--region", region)
    output = _aws("ec2", "get-console-output", *what, *chosen, **keys)
    return [line[line.index("teleport-eks: ") :] for line in output.splitlines() if "teleport-eks: " in line]


def _aws(*arguments: str, **environment: str) -> str:
    try:
        done = subprocess.run(
            ["aws", *arguments], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConsoleError(f"its console could not be read: {error}") from error
    if done.returncode:
        raise ConsoleError(f"its console could not be read: {done.stderr.strip()}")
    return done.stdout


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m components.ready")
    parser.add_argument("--hostname", required=True)
    parser.add_argument("--instance-id", required=True)
    parser.add_argument("--region", required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--version", required=True, help="the Teleport release that has to answer")
    parser.add_argument("--revision", required=True, help="what the host has to report on its console")
    parser.add_argument("--profile", help="of the AWS CLI, to read the console with")
    parser.add_argument("--role-arn", help="a role to assume for that")
    parser.add_argument("--port", type=int, default=Port.WEB)
    args = parser.parse_args(argv)

    read_console = functools.partial(console, args.instance_id, args.region, args.profile, args.role_arn)

    def reported() -> bool:
        try:
            said = read_console()
        except ConsoleError:
            return False
        return any(line.rstrip().endswith(f"step end: done, revision {args.revision}") for line in said)

    url, told, state = f"https://{args.hostname}:{args.port}/webapi/find", 0.0, ""
    for seconds, state in wait(url, args.version, args.minutes, reported):
        if seconds >= told:
            print(f"{seconds:4.0f} s  {url}: {state}", flush=True)
            told = seconds + TELL_EVERY
    if state == TRUSTED:
        print(f"{args.hostname} {state}")
        return 0
    closer = f"aws ssm start-session --region {args.region} --target {args.instance_id}"
    if state == UNTRUSTED:
        print(f"{args.hostname} {state}. The host keeps trying; to see why:\n  {closer}")
        print("  systemctl status teleport-certificate")
        return 0
    if state == REPORTED:
        print(
            f"warning: {args.hostname} {state}. If this machine is not in clientCidrs, that is how it should be; "
            f"else a firewall on the way closes port {args.port}.",
            file=sys.stderr,
        )
        return 0
    try:
        said = "\n".join(read_console()[-8:]) or "it has written nothing to its console yet"
    except ConsoleError as error:
        said = str(error)
    print(f"{args.hostname} is not up after {args.minutes:g} minutes: {state}. The host said last:", file=sys.stderr)
    print(said, file=sys.stderr)
    print(f"To look closer:\n  {closer}\n  journalctl -u teleport-bootstrap -u teleport", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
