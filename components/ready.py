"""Waits until a new host is a working proxy, or says where its boot stopped.

    python -m components.ready --hostname NAME --instance-id ID --region REGION --minutes N

Asks ``https://NAME:3080/webapi/find``, and says every quarter of a minute what it sees. (``/webapi/ping`` is HTTP 400
until there is a GitHub connector.) Exit 0 as soon as the proxy answers with a certificate that this machine trusts, or
when it has answered for a while with one that it does not: the host goes on trying to get one. Exit 1 after N minutes,
with what the host last wrote to its console.
"""

import argparse
import json
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

EVERY = 5  # seconds between two questions
TELL_EVERY = 15  # seconds between two lines
CERTIFICATE_WITHIN = 180  # seconds that a certificate usually takes, from when the proxy first answers
TRUSTED, UNTRUSTED = "answers", "answers, with a certificate that is not trusted yet"


def look(url: str) -> str:
    """What the proxy is like now: TRUSTED, UNTRUSTED, or why it cannot be reached."""
    try:
        return _ask(url, ssl.create_default_context())
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLCertVerificationError):
            return str(error.reason)
    except (OSError, ValueError) as error:
        return str(error)
    anything = ssl.create_default_context()
    anything.check_hostname, anything.verify_mode = False, ssl.CERT_NONE
    try:
        _ask(url, anything)
    except (OSError, ValueError) as error:
        return str(error)
    return UNTRUSTED


def _ask(url: str, context: ssl.SSLContext) -> str:
    with urllib.request.urlopen(url, timeout=10, context=context) as response:  # noqa: S310 - it is always https
        json.load(response)  # anything else that listens there would hardly answer JSON
    return TRUSTED


def wait(url: str, minutes: float) -> Iterator[tuple[float, str]]:
    """What is seen, with the seconds since the beginning, until it is good enough or the time is over."""
    began = time.monotonic()
    answered_at = None
    while True:
        state = look(url)
        seconds = time.monotonic() - began
        yield seconds, state
        if state == UNTRUSTED and answered_at is None:
            answered_at = seconds
        waited_for_certificate = answered_at is not None and seconds - answered_at > CERTIFICATE_WITHIN
        if state == TRUSTED or (state == UNTRUSTED and waited_for_certificate) or seconds > minutes * 60:
            return
        time.sleep(EVERY)


def console(instance_id: str, region: str) -> str:
    """What the host's units said on its console: the steps of the boot, the newest last."""
    command = ["aws", "ec2", "get-console-output", "--latest", "--output", "text", "--query", "Output"]
    try:
        done = subprocess.run(
            [*command, "--instance-id", instance_id, "--region", region], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"its console could not be read: {error}"
    if done.returncode:
        return f"its console could not be read: {done.stderr.strip()}"
    said = [line[line.index("teleport-eks: ") :] for line in done.stdout.splitlines() if "teleport-eks: " in line]
    return "\n".join(said[-8:]) or "it has written nothing to its console yet"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m components.ready")
    parser.add_argument("--hostname", required=True)
    parser.add_argument("--instance-id", required=True)
    parser.add_argument("--region", required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--port", type=int, default=3080)
    args = parser.parse_args(argv)

    url, told, state = f"https://{args.hostname}:{args.port}/webapi/find", 0.0, ""
    for seconds, state in wait(url, args.minutes):
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
    print(f"{args.hostname} is not up after {args.minutes:g} minutes: {state}. The host said last:", file=sys.stderr)
    print(console(args.instance_id, args.region), file=sys.stderr)
    print(f"To look closer:\n  {closer}\n  journalctl -u teleport-bootstrap -u teleport", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
