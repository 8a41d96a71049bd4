"""listenerMode: with multiplex, all that people connect to is on 443."""

import dataclasses
import json

import pulumi
import pytest

from teleport_eks.errors import ConfigurationError
from teleport_eks.proxy import TeleportProxy, TeleportProxyArgs
from teleport_eks.userdata import files
from tests.boot import strict
from tests.examples import HOST, INGRESS, PLATFORM, SITE, settings
from tests.recorder import Recorder, record

APP = {
    "githubClientId": "Iv1.1",
    "githubClientSecret": "x",
    "teams": json.dumps([PLATFORM.model_dump(by_alias=True)]),
}
NAME = "ec2-203-0-113-10.nip.io"  # of the address that the recorder gives


def declared(mode: str) -> tuple[Recorder, dict]:
    """A whole proxy, and its outputs."""
    outputs = {}

    def build() -> None:
        configured = settings(listenerMode=mode, adminCidrs='["203.0.113.7/32"]', **APP)
        proxy = TeleportProxy("teleport", TeleportProxyArgs("dev", configured, SITE))
        for name, value in proxy.outputs.items():
            pulumi.Output.from_input(value).apply(lambda known, name=name: outputs.update({name: known}))

    return record(build), outputs


@pytest.mark.parametrize(
    ("mode", "ports", "url", "port"),
    [
        ("separate", {3023, 3024, 3026, 3080}, f"https://{NAME}:3080", 3080),
        ("multiplex", {443}, f"https://{NAME}", 443),
    ],
)
def test_firewall_outputs_connector_and_the_wait_follow(mode: str, ports: set[int], url: str, port: int) -> None:
    made, outputs = declared(mode)
    mine = [rule for rule in made.of(INGRESS) if "cidrIpv4" in rule]
    assert {rule["fromPort"] for rule in mine if rule["cidrIpv4"] == "0.0.0.0/0"} == {80} | ports
    assert {rule["fromPort"] for rule in mine if rule["cidrIpv4"] != "0.0.0.0/0"} == {22, 3022, 3025}

    callback = f"{url}/v1/webapi/github/callback"
    assert (outputs["webUrl"], outputs["githubHomepageUrl"], outputs["githubCallbackUrl"]) == (url, url, callback)
    assert outputs["tshLogin"] == f"tsh login --proxy={NAME}:{port}"
    connectors = [p for p in made.of("aws:ssm/parameter:Parameter") if p["name"].endswith("/github-connector")]
    assert [json.loads(p["insecureValue"])["spec"]["redirect_url"] for p in connectors] == [callback]
    assert f"callback: {callback}\n" in outputs["nextSteps"], "the app that exists has to be changed"
    assert "`tsh logout` first" in outputs["nextSteps"]
    waits = [c["create"] for c in made.of("command:local:Command") if "teleport_eks.ready" in c["create"]]
    assert [wait.split()[-2:] for wait in waits] == [["--port", str(port)]]


def test_the_host_listens_on_one_port_only() -> None:
    one = dataclasses.replace(HOST, settings=HOST.settings.model_copy(update={"listener_mode": "multiplex"}))
    written = files(one)
    assert strict.check_config(written["/etc/teleport.yaml"]) == []
    config = strict.load(written["/etc/teleport.yaml"])
    assert config["auth_service"]["proxy_listener_mode"] == "multiplex"
    addresses = {key: value for key, value in config["proxy_service"].items() if key.endswith("addr")}
    assert addresses == {"web_listen_addr": "0.0.0.0:443", "public_addr": f"{HOST.hostname}:443"}
    assert "WEB_PORT=443\n" in written["/etc/teleport-eks/host.env"]


def test_one_port_needs_one_rule_for_each_range() -> None:
    many = {"clientCidrs": json.dumps([f"10.0.0.{number}/32" for number in range(59)])}
    assert settings(listenerMode="multiplex", **many)
    with pytest.raises(ConfigurationError, match="make 237 firewall rules"):
        settings(**many)


def test_another_mode_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"listenerMode\n.*\n.*must be 'separate' or 'multiplex'"):
        settings(listenerMode="one")
