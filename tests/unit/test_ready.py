"""The wait for a new host, against a real TLS server."""

import json
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from werkzeug import Request, Response
from werkzeug.serving import make_server

from teleport_eks import ready

Serve = Callable[..., int]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a TLS server that answers ``body``; returns its port."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").configure_cert(context)
    servers = []

    def start(body: bytes = b'{"server_version": "18.10.1"}') -> int:
        @Request.application
        def answer(request: Request) -> Response:
            # As Teleport does while it has no GitHub connector: only /webapi/find answers.
            return Response(body, 200 if request.path == "/webapi/find" else 400)

        server = make_server("127.0.0.1", 0, answer, threaded=True, ssl_context=context)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server.port

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "ASK_EVERY", 0.01)
    monkeypatch.setattr(ready, "PRINT_EVERY", 0)
    monkeypatch.setattr(ready, "READ_CONSOLE_EVERY", 0)
    monkeypatch.setattr(ready, "CERTIFICATE_WITHIN", 0.1)


@pytest.fixture(autouse=True)
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The AWS CLI on PATH is a line of shell, here one that finds an empty console. Gives it another line."""
    script = tmp_path / "aws"

    def install(line: str) -> None:
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(stat.S_IRWXU)

    install("true")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return install


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine trusts the server's certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


def run(port: int, minutes: float = 0.2, *more: str) -> int:
    identity = ["--hostname", "127.0.0.1", "--instance-id", "i-1", "--region", "eu-west-1"]
    expected = ["--version", "18.10.1", "--revision", "0a1b2c"]
    return ready.main([*identity, *expected, "--port", str(port), "--minutes", str(minutes), *more])


@pytest.mark.usefixtures("trusted")
def test_a_proxy_that_comes_up_late_is_waited_for(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    port, look = serve(), ready.look
    reasons = iter(["Connection refused", "timed out"])

    def late(url: str, version: str) -> str:
        for reason in reasons:
            raise ready.UnreachableError(reason)
        return look(url, version)

    monkeypatch.setattr(ready, "look", late)
    assert run(port) == 0
    said = capsys.readouterr().out
    assert "Connection refused" in said
    assert "not trusted" not in said


def test_a_proxy_without_a_trusted_certificate_counts_as_up_after_a_while(
    serve: Serve, capsys: pytest.CaptureFixture
) -> None:
    assert run(serve()) == 0
    said = capsys.readouterr().out
    assert said.count("not trusted yet") > 2, "it waits for the certificate, and says so"
    assert "systemctl status teleport-certificate" in said


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("printf '[ 9.1] cloud-init: teleport-eks: step download: HTTP 404\\nnoise\\n'", "step download: HTTP 404"),
        ("echo 'no credentials' >&2; exit 1", "could not read its console: no credentials"),
        ("true", "it has not written anything to its console yet"),
    ],
)
def test_the_last_step_of_a_stopped_boot_is_reported(
    aws: Callable[[str], None], capsys: pytest.CaptureFixture, line: str, expected: str
) -> None:
    aws(line)
    assert run(1, minutes=0.001) == 1
    said = capsys.readouterr().err
    assert "is not up after 0.001 minutes" in said
    assert expected in said
    assert "noise" not in said
    assert "aws ssm start-session --region eu-west-1 --target i-1" in said


def test_a_group_is_up_when_all_its_hosts_are_new_and_healthy(
    aws: Callable[[str], None], tmp_path: Path, serve: Serve, capsys: pytest.CaptureFixture
) -> None:
    def group(*versions: str, healthy: str) -> None:
        instances = [
            {"InstanceId": f"i-{number}", "LaunchTemplate": {"Version": version}}
            for number, version in enumerate(versions)
        ]
        found = {"LaunchTemplate": {"Version": "2"}, "DesiredCapacity": 2, "Instances": instances}
        states = [
            {"Target": {"Id": f"i-{number}"}, "TargetHealth": {"State": "healthy" if number in healthy else "initial"}}
            for number in "01"
        ]
        (tmp_path / "autoscaling").write_text(json.dumps(found))
        (tmp_path / "elbv2").write_text(json.dumps(states))

    def run_group(port: int) -> int:
        identity = ["--hostname", "127.0.0.1", "--group", "hosts", "--targets", "arn", "--region", "eu-west-1"]
        expected = ["--version", "18.10.1", "--revision", "0a1b2c", "--minutes", "0.002"]
        return ready.main([*identity, *expected, "--port", str(port)])

    aws(f"[ $1 = ec2 ] && echo teleport-eks: step mount || cat {tmp_path}/$1")
    port = serve()
    for versions, healthy in ((("1", "2"), "01"), (("2", "2"), "0"), (("2",), "01"), (("2", "2", "1"), "01")):
        group(*versions, healthy=healthy)
        assert run_group(port) == 1, "an old host answers, or one does not"
        said = capsys.readouterr().err
        assert "of 2 hosts are new and healthy" in said
        assert said.count("step mount") == len(versions), "each host's console"
    group("2", "2", healthy="01")
    assert run_group(port) == 0
    assert "2 of 2 hosts are new and healthy" in capsys.readouterr().out
    aws("echo no credentials >&2; exit 1")
    assert run_group(port) == 1
    assert "could not look at hosts: no credentials" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"<html>", "is not up"),
        # The release from before an upgrade in place.
        (b'{"server_version": "18.7.4"}', "Teleport 18.7.4 is still running there, not 18.10.1"),
    ],
)
@pytest.mark.usefixtures("trusted")
def test_another_server_or_release_is_not_the_proxy(
    serve: Serve, capsys: pytest.CaptureFixture, body: bytes, expected: str
) -> None:
    assert run(serve(body), minutes=0.002) == 1
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("revision", "code", "expected"),
    [("0a1b2c", 0, "warning: 127.0.0.1 does not answer here"), ("999999", 1, "is not up")],  # of an earlier boot
)
def test_the_hosts_own_report_is_enough_if_it_is_of_this_revision(
    aws: Callable[[str], None], capsys: pytest.CaptureFixture, revision: str, code: int, expected: str
) -> None:
    aws(f"printf '[ 9.1] bootstrap[7]: teleport-eks: step end: done, revision {revision}\\r\\n'")
    assert run(1, 0.002) == code
    assert expected in capsys.readouterr().err


def test_the_console_is_read_with_the_stacks_profile_and_role(
    aws: Callable[[str], None], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    keys = '{"Credentials": {"AccessKeyId": "AKIA", "SecretAccessKey": "canary", "SessionToken": "token"}}'
    aws(f"echo $1 $* $AWS_ACCESS_KEY_ID $AWS_SESSION_TOKEN >>{tmp_path}/calls; [ $1 = ec2 ] || echo '{keys}'")
    assert run(1, 0, "--profile", "ops", "--role-arn", "arn:aws:iam::1:role/deploy") == 1
    assume, read = (tmp_path / "calls").read_text().splitlines()[-2:]
    assert "assume-role --role-arn arn:aws:iam::1:role/deploy" in assume
    assert "--profile ops" in assume
    assert "--profile" not in read
    assert read.endswith("AKIA token")
    assert "canary" not in "".join(capsys.readouterr())
