"""``make who``: what the real Teleport says is understood. Its other parts are in tests/unit/test_who.py."""

import json

from tests.teleport.stage import Site, developers
from tests.waiting import wait_for


def test_teams_people_and_bots(site: Site) -> None:
    site.up(developers("tilers"))
    tara = site.person("tara", ("acme", "tilers"), ("acme", "audit"))
    tara.sign_in()
    role = "{kind: role, version: v7, metadata: {name: by-hand}, spec: {allow: {logins: [root]}}}"
    site.on_host(f"tctl create <<END\n{role}\nEND\ntctl bots add ci --roles=kube-acme-dev")
    # It shows what it was just given after a moment only.
    wait_for(lambda: site.look()["bots"] and "by-hand" in site.look()["teams"], "Teleport does not show the two")

    found = site.look(developers("tilers"), developers("plumbers"))
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
    found = site.look()
    assert found["teams"]["kube-acme-tilers"]["state"] == "removed: allows nothing"
    assert found["locks"]["teleport-eks-kube-acme-tilers"]["target"] == {"role": "kube-acme-tilers"}
    assert found["people"]["tara"]["state"] == "locked: kube-acme-tilers was removed from the stack"
    site.tctl("rm", "role/by-hand")
    site.tctl("bots", "rm", "ci")
    site.tctl("users", "rm", "tara")
    wait_for(lambda: site.look()["people"]["tara"]["state"] == "sign-in has ended", "she is still signed in")
