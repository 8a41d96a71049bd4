"""The keys for a certificate from elsewhere than Let's Encrypt, and what they mean for the account and the host."""

from pathlib import Path

import pytest
from pulumi.runtime import set_all_config

from policy.checks import Resource, plain_secret_parameters
from teleport_eks.errors import ConfigurationError
from teleport_eks.identity import permissions
from teleport_eks.settings import load, parse
from teleport_eks.userdata import LIMIT, _compress, cloud_config, files, variables
from tests.examples import CONFIG, HOST, ROOT, host_with, record_proxy

OWN = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:teleport/pair-a1B2c3"
PARAMETER = "arn:aws:ssm:eu-west-1:111122223333:parameter/teleport/pair"
KEY = "arn:aws:kms:eu-west-1:111122223333:key/01234567-89ab-cdef-0123-456789abcdef"
DOMAIN = {"domainName": "teleport.example.com", "hostedZone": "example.com"}
EAB = {"acmeServer": "https://acme.zerossl.com/v2/DV90", "acmeEabKeyId": "kid-1", "acmeEabKey": "canary-canary-canary"}
SSM_PARAMETER = "aws:ssm/parameter:Parameter"


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        ({**EAB, "acmeEabKey": ""}, "acmeEabKeyId and acmeEabKey go together"),
        ({**EAB, "acmeEabKeyId": ""}, "acmeEabKeyId and acmeEabKey go together"),
        ({**EAB, "acmeServer": ""}, "needs acmeServer"),
        ({**EAB, "acmeEabKey": "hunter2"}, "in base64url"),
        ({**EAB, "acmeEabKey": "hunter2hunter2hunter2\n"}, "in base64url"),
        ({**EAB, "acmeEabKeyId": "kid 1"}, "must be the key's id"),
        ({"certificateArn": OWN}, "needs domainName"),
        ({**DOMAIN, "certificateArn": OWN[:-7]}, "must be the whole ARN"),
        ({**DOMAIN, "certificateArn": OWN, "acmeServer": EAB["acmeServer"]}, "remove it, or acmeServer"),
        ({**DOMAIN, **EAB, "certificateArn": OWN}, "remove it, or acmeServer, acmeEabKeyId and acmeEabKey"),
        ({"privateCa": "nowhere/root.pem"}, "No such file"),
        ({"privateCa": "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"}, "certificate in PEM"),
        (
            {"privateCa": f"{ROOT}-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----"},
            "without its key",
        ),
        ({"privateCa": "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----"}, "certificate in PEM"),
    ],
)
def test_what_cannot_work_is_refused(config: dict, rule: str) -> None:
    with pytest.raises(ConfigurationError, match="1 problem") as refused:
        parse({**CONFIG, **config}, "dev")
    assert rule in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert "aHVudGVyMg" not in str(refused.value), "a private key by mistake"


def test_an_eab_key_in_plain_text_is_refused() -> None:
    config = {f"teleport-eks:{key}": value for key, value in {**CONFIG, **EAB}.items()}
    set_all_config(config, ["teleport-eks:acmeEabKey"])
    assert load("dev").acme_eab_key
    set_all_config(config, [])
    with pytest.raises(ConfigurationError, match=r"acmeEabKey\n .*\n .* in plain text") as refused:
        load("dev")
    assert EAB["acmeEabKey"] not in str(refused.value)


def test_the_eab_key_goes_to_ssm_and_not_into_user_data() -> None:
    declared = record_proxy(EAB)
    (parameter,) = [p for p in declared.of(SSM_PARAMETER) if p["name"].endswith("/acme/eab-key")]
    assert (parameter["name"], parameter["type"]) == ("/teleport-eks/dev/acme/eab-key", "SecureString")
    assert parameter["value"] == EAB["acmeEabKey"]
    host = host_with(**EAB)
    assert variables(host)["ACME_EAB_KEY_ID"] == "kid-1"
    assert EAB["acmeEabKey"] not in cloud_config(host)
    plain = Resource(SSM_PARAMETER, "eab", {**parameter, "type": "String"})
    assert list(plain_secret_parameters(plain, {}))


def test_a_private_root_is_trusted_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_text(ROOT)
    host = host_with(privateCa=str(tmp_path / "root.pem"))
    assert host.settings.private_ca == ROOT, "the text, which is the same on every machine"
    assert files(host)["/etc/pki/ca-trust/source/anchors/teleport-eks.pem"] == ROOT
    document = cloud_config(host)
    assert document.index("write_files, --frequency") < document.index("[update-ca-trust]") < document.index("runcmd")
    assert "update-ca-trust" not in cloud_config(HOST)
    assert set(files(host)) - set(files(HOST)) == {"/etc/pki/ca-trust/source/anchors/teleport-eks.pem"}


def test_with_an_own_certificate_the_host_reads_that_one_secret() -> None:
    for arn, action, context in (
        (OWN, "secretsmanager:GetSecretValue", "kms:EncryptionContext:SecretARN"),
        (PARAMETER, "ssm:GetParameter", "kms:EncryptionContext:PARAMETER_ARN"),
    ):
        before = permissions("cluster", "parameters", None, KEY)["Statement"]
        after = permissions("cluster", "parameters", None, KEY, certificate_arn=arn)["Statement"]
        read, decrypt = [statement for statement in after if statement not in before]
        assert (read["Action"], read["Resource"]) == (action, arn)
        assert (decrypt["Action"], decrypt["Resource"]) == ("kms:Decrypt", KEY)
        assert decrypt["Condition"] == {"StringEquals": {context: arn}}


def test_with_an_own_certificate_no_acme_server_is_asked() -> None:
    declared = record_proxy({**DOMAIN, "certificateArn": OWN})
    ports = {rule.get("fromPort") for rule in declared.of("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")}
    assert 3080 in ports
    assert 80 not in ports
    (policy,) = declared.of("aws:iam/rolePolicy:RolePolicy")
    assert OWN in policy["policy"]
    assert "route53" not in policy["policy"]
    host = host_with(**DOMAIN, certificateArn=OWN)
    written = files(host)
    assert "certbot" not in written["/usr/local/lib/teleport-eks/certificate"]
    assert "OnCalendar=hourly" in written["/etc/systemd/system/teleport-certificate.timer"]
    assert "CERTIFICATE_ARN" not in files(HOST)["/etc/teleport-eks/host.env"]
    assert len(_compress(cloud_config(host), {})) < len(_compress(cloud_config(HOST), {})) < LIMIT
