"""The proxy's name."""

from teleport_eks.address import ProxyAddress, ProxyAddressArgs, callback_url, dynamic_hostname
from tests.examples import settings
from tests.recorder import record


def test_the_hostname_contains_the_address() -> None:
    assert dynamic_hostname("203.0.113.10", "nip.io") == "ec2-203-0-113-10.nip.io"
    assert callback_url(settings(), "a.b") == "https://a.b:3080/v1/webapi/github/callback"


def test_only_a_domain_of_the_users_own_gets_a_record() -> None:
    named = settings(domainName="teleport.example.com", hostedZone="example.com")
    own = record(lambda: ProxyAddress("proxy", ProxyAddressArgs(named, "Z1")))
    record_set = own.only("aws:route53/record:Record")
    assert (record_set["name"], record_set["records"]) == ("teleport.example.com", ["203.0.113.10"])
    dynamic = record(lambda: ProxyAddress("proxy", ProxyAddressArgs(settings(), None)))
    assert dynamic.only("aws:ec2/eip:Eip")["domain"] == "vpc"
    assert not dynamic.has("aws:route53/record:Record")
