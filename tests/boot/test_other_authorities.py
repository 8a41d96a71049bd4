"""A certificate from elsewhere than Let's Encrypt: from who binds accounts, from a private CA, the operator's own."""

import os
import re
import socket
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import trustme

from sandbox.binaries import binaries
from tests.boot.rig import CERTIFICATE, Host, World, pem
from tests.waiting import wait_for

BINDING, PEBBLE, MANAGEMENT = 8020, 8021, 8022  # ports in the world's network
# 32 bytes, which is what it takes; it begins like an option.
CANARY = f"-{os.urandom(21).hex()[1:]}A"
KEY_READ = "aws AmazonSSM.GetParametersByPath"
KEY = "acme/eab-key"


@pytest.fixture(scope="module")
def root(world: World) -> str:
    """An ACME server that makes accounts only for those who have the key; its root certificate."""
    bound = {"externalAccountBindingRequired": True, "externalAccountMACKeys": {"kid-1": CANARY}}
    return world.start_pebble(binaries("pebble")["pebble"], "binding", BINDING, PEBBLE, MANAGEMENT, **bound)


def put(host: Host, name: str, value: str) -> str:
    """Makes an SSM parameter of the stack; returns its ARN."""
    ssm, name = host.world.aws("ssm"), f"{host.config.parameters_path}/{name}"
    ssm.put_parameter(Name=name, Value=value, Type="SecureString", Overwrite=True)
    return ssm.get_parameter(Name=name)["Parameter"]["ARN"]


def restart(host: Host, **changes: object) -> None:
    """The host has other settings, after a stop and a start."""
    host.write_user_data(**changes)
    host.sh("systemctl restart teleport.service")
    wait_for(host.ping, "Teleport does not answer")


def bind(host: Host, **changes: object) -> None:
    """The host asks the authority that binds accounts."""
    changes = {"acme_server": f"https://127.0.0.1:{BINDING}/dir", "acme_eab_key_id": "kid-1", **changes}
    put(host, KEY, f"{CANARY}=")  # some authorities show the padding
    restart(host, **changes)


def wait_served(host: Host, before: str) -> None:
    wait_for(lambda: host.certificate() not in ("", before), "Teleport does not serve the new certificate")


def test_an_account_is_bound_and_nobody_sees_the_key(either: Host, root: str) -> None:
    bind(either, private_ca=root)
    before, world = either.certificate(), either.world
    fault = world.fault("binding POST /sign-me-up", "hang", times=1)
    process = either.begin(CERTIFICATE)
    assert fault.reached.wait(60), "certbot does not register"
    # Now certbot has the key.
    assert any("cmdline" in place for place in either.places("eab-kid=kid-1")), "it would be found"
    assert either.places(CANARY) == []
    world.clear()
    console, journal = process.communicate(timeout=120)
    run = either.succeed(CERTIFICATE)
    wait_served(either, before)
    assert world.asked(KEY_READ)
    assert CANARY not in console + journal + run.console + run.journal
    assert either.places("kid-1"), "it would be found"
    assert either.places(CANARY) == []
    # Once there is an account, nobody reads the key.
    either.make_renewal_due()
    world.clear()
    before = either.certificate()
    either.succeed(CERTIFICATE)
    wait_served(either, before)
    assert world.asked(KEY_READ) == []


def test_a_wrong_key_is_a_refusal_and_another_id_is_tried_at_once(either: Host, root: str) -> None:
    bind(either, private_ca=root)
    either.configure(PAUSE_FIRST="3000", PAUSE_MAX="3000")
    put(either, KEY, f"x{CANARY}")
    run = either.fail(CERTIFICATE, "refused: Unable to register an account")
    assert CANARY not in run.console + run.journal
    either.write_user_data(acme_eab_key_id="kid-2")
    run = either.fail(CERTIFICATE, "not known")
    assert "waiting" not in run.console


def test_a_key_that_is_not_there_yet_is_no_refusal(running: Host, root: str) -> None:
    bind(running, private_ca=root)
    running.world.set_parameters(running.config.parameters_path, {})
    running.fail(CERTIFICATE, "failed: cannot read /teleport-eks/s0/acme/eab-key")
    assert not running.read("/var/lib/teleport/letsencrypt/refused")


class Store(NamedTuple):
    """Where the operator keeps the pair."""

    arn: str
    write: Callable[[str], object]


@pytest.fixture
def authority() -> trustme.CA:
    """A private authority below its root, as many are."""
    return trustme.CA().create_child_ca()


@pytest.fixture(params=["ssm", "secretsmanager"])
def store(request: pytest.FixtureRequest, running: Host, authority: trustme.CA) -> Store:
    """What the host that is `running` takes its certificate from."""
    if request.param == "ssm":
        made = Store(put(running, "own", "-"), partial(put, running, "own"))
    else:
        manager = running.world.aws("secretsmanager")
        arn = manager.create_secret(Name=os.urandom(8).hex(), SecretString="-")["ARN"]
        made = Store(arn, lambda pair: manager.put_secret_value(SecretId=arn, SecretString=pair))
    assert authority.parent_cert
    restart(running, certificate_arn=made.arn, private_ca=pem(authority.parent_cert.cert_pem))
    return made


def issue(authority: trustme.CA, name: str) -> tuple[str, str]:
    """A new key, and its certificate for ``name`` with the chain behind it."""
    made = authority.issue_cert(name)
    return pem(made.private_key_pem), "".join(map(pem, made.cert_chain_pems))


def test_the_own_pair_is_installed_and_replaced_without_a_restart(
    running: Host, store: Store, authority: trustme.CA
) -> None:
    pid, name = running.read("/run/teleport.pid"), running.config.hostname
    running.world.clear()
    with socket.create_server(("", 80)):
        # The order of key and chain does not matter.
        for text in ("".join(issue(authority, name)), "".join(reversed(issue(authority, name)))):
            before = running.certificate()
            store.write(text)
            running.succeed(CERTIFICATE)
            wait_served(running, before)
    assert running.read("/run/teleport.pid") == pid
    assert running.world.requests
    assert running.world.asked("^acme") == []
    folder = running.path("/var/lib/teleport/tls")
    assert len(list(folder.iterdir())) == 2, "the pair, and the link to it"
    assert (folder / "current/key.pem").stat().st_mode & 0o777 == 0o600
    written = running.data()
    running.succeed(CERTIFICATE)
    assert running.data() == written, "nothing is written if nothing is new"


def test_an_own_pair_that_cannot_be_used_or_read_changes_nothing(
    running: Host, store: Store, authority: trustme.CA
) -> None:
    name = running.config.hostname
    key, chain = issue(authority, name)
    other_key, _ = issue(authority, name)
    before = running.certificate()

    def refuse(reason: str) -> None:
        run = running.fail(CERTIFICATE, reason)
        assert key.splitlines()[1] not in run.console + run.journal
        assert running.certificate() == before
        assert not running.path("/var/lib/teleport/tls/.fetched").exists()

    for text, why in (
        (chain, "a file is missing"),
        (other_key + chain, "the key does not belong to the certificate"),
        ("".join(issue(authority, "other.example.org")), f"the certificate is not for {name}"),
        ("".join(issue(trustme.CA(), name)), "this host does not trust it"),
    ):
        store.write(text)
        refuse(f"the pair in service stays: {why}")
    gone = store.arn.replace("own", "gone").replace(":secret:", ":secret:x")
    running.write_user_data(certificate_arn=gone)
    refuse(f"cannot read {re.escape(gone)}; the pair in service stays")
