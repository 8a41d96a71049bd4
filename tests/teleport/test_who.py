"""``make who``: what the real Teleport says is understood. Its other parts are in tests/unit/test_who.py."""

import json
from typing import Any

from fleet import who
from teleport_eks.settings import parse
from tests.teleport.stage import TEAMS, Site, developers
from tests.waiting import wait_for


def on_host(site: Site, commands: str) -> str:
    """As root, as in a session of Session Manager."""
    return site.host.sh(f"set -e; export SSL_CERT_FILE=/etc/rig-trusted.pem\n{commands}")


def look(site: Site, *teams: dict[str, Any], **config: str) -> dict[str, dict[str, Any]]:
    """The report for a stack's file with these teams and those that are always there: by role, person, lock, bot."""
    stack, given = site.host.config.stack, json.dumps([*TEAMS, *teams])
    stored = who.parameters(site.world.aws("ssm"), stack)
    settings = parse({"clusterName": "demo", "acmeEmail": "ops@example.org", "teams": given, **config}, stack)
    found = who.report(settings, stack, stored, who.read(on_host(site, who.COMMAND)))
    return {kind: {list(item.values())[kind == "teams"]: item for item in found[kind]} for kind in list(found)[1:]}


def test_teams_people_and_bots(site: Site) -> None:
    site.up(developers("tilers"))
    tara = site.person("tara", ("acme", "tilers"), ("acme", "audit"))
    tara.sign_in()
    role = "{kind: role, version: v7, metadata: {name: by-hand}, spec: {allow: {logins: [root]}}}"
    on_host(site, f"tctl create <<END\n{role}\nEND\ntctl bots add ci --roles=kube-acme-dev")
    # It shows what it was just given after a moment only.
    wait_for(lambda: look(site)["bots"] and "by-hand" in look(site)["teams"], "Teleport does not show the two")

    found = look(site, developers("tilers"), developers("plumbers"))
    states = {name: found["teams"][f"kube-acme-{name}"]["state"] for name in ("dev", "audit", "tilers", "plumbers")}
    assert states.pop("plumbers").startswith("is only in the stack's file")
    assert set(states.values()) == {"applied"}
    assert found["teams"]["kube-acme-tilers"]["kubernetesGroups"] == ["tilers"]
    assert [name for name, team in found["teams"].items() if team["auditor"]] == ["kube-acme-audit"]
    assert found["teams"]["by-hand"]["state"] == "not from the stack: made with tctl"
    assert not {"editor", "bot-ci"} & found["teams"].keys(), "Teleport's own"
    assert found["bots"].keys() == {"ci"}
    bot = found["bots"]["ci"]
    assert (bot["role"], bot["kubernetesGroups"]) == ("kube-acme-dev", ["dev"])
    assert bot["state"] == "not from the stack: made with tctl"
    person = found["people"]["tara"]
    assert (sorted(person["roles"]), person["state"]) == (["kube-acme-audit", "kube-acme-tilers"], "signed in")
    until = json.loads(tara.can("tsh", "status", "--format=json"))["active"]["valid_until"]
    assert person["until"][:16] == until[:16]

    # The team goes: the host locks its role for a minute, and then the role allows nothing.
    site.up()
    found = look(site)
    assert found["teams"]["kube-acme-tilers"]["state"] == "removed: allows nothing"
    assert found["locks"]["teleport-eks-kube-acme-tilers"]["target"] == {"role": "kube-acme-tilers"}
    assert found["people"]["tara"]["state"] == "locked: kube-acme-tilers was removed from the stack"
    site.tctl("rm", "role/by-hand")
    site.tctl("bots", "rm", "ci")
    site.tctl("users", "rm", "tara")
    wait_for(lambda: look(site)["people"]["tara"]["state"] == "sign-in has ended", "she is still signed in")
