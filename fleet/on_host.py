"""Runs on the proxy's host, sent there by ``fleet.who``: prints who has access, as JSON, gzip and base64.

Session Manager returns no more than 24,000 characters, so only what ``who`` shows is in it: no secret is asked for.
Python 3.9 and its standard library only: that is what Amazon Linux 2023 has.
"""

import base64
import datetime
import glob
import gzip
import json
import os
import subprocess
import sys

DAYS = 30  # of the audit log, for people whose sign-in has ended


def get(kind):
    # One kind per call: tctl prints several kinds as YAML only.
    command = ["/usr/local/bin/tctl", "--config=/etc/teleport.yaml", "get", kind, "--format=json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        sys.exit(f"tctl get {kind}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def own(kind):
    """Without Teleport's presets, and what it makes for its bots."""
    return [
        item
        for item in get(kind)
        if not any(label.startswith("teleport.internal/") for label in item["metadata"].get("labels") or {})
    ]


def seconds(time):
    """Teleport's times have nanoseconds, or are missing."""
    return f"{time[:19]}Z" if time else None


def last_logins():
    since = datetime.date.today() - datetime.timedelta(days=DAYS)
    logins = {}
    for path in sorted(glob.glob("/var/lib/teleport/log/*/????-??-??.*.log"), key=os.path.basename):
        if os.path.basename(path) >= since.isoformat():
            with open(path, encoding="utf-8") as log:
                for line in log:
                    event = json.loads(line) if '"event":"user.login"' in line else {}
                    if event.get("success") and event.get("user"):
                        logins[event["user"]] = seconds(event["time"])
    return logins


def main():
    users = own("users")
    names = {user["metadata"]["name"] for user in users}
    found = {
        "roles": [
            {"name": role["metadata"]["name"], "allow": role["spec"].get("allow") or {}} for role in own("roles")
        ],
        "mappings": [item for connector in get("github") for item in connector["spec"].get("teams_to_roles") or []],
        "people": [
            {
                "person": user["metadata"]["name"],
                "roles": user["spec"].get("roles") or [],
                "signedIn": seconds(user["spec"]["created_by"]["time"]),
                "until": seconds(user["metadata"].get("expires")),
                "state": "signed in" if user["spec"].get("github_identities") else "not from GitHub: made with tctl",
            }
            for user in users
        ],
        "locks": [
            {
                "lock": lock["metadata"]["name"],
                "target": lock["spec"]["target"],
                "until": seconds(lock["spec"].get("expires")),
                "message": lock["spec"].get("message", ""),
            }
            for lock in get("locks")
        ],
        "bots": [{"bot": bot["metadata"]["name"], "roles": bot["spec"].get("roles") or []} for bot in get("bots")],
        "ended": {name: time for name, time in last_logins().items() if name not in names},
    }
    print(base64.b64encode(gzip.compress(json.dumps(found, separators=(",", ":")).encode())).decode())


main()
