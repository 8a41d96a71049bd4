"""`recordings: s3` on a live proxy, and the way back: what is played, from where, and what Teleport asks S3 for."""

import json
import re
from collections.abc import Iterator

import pexpect
import pytest

from teleport_eks.identity import permissions
from tests.teleport.people import SHELL, Person
from tests.teleport.stage import Site
from tests.waiting import wait_for

BUCKET = "teleport-recordings-1234567"
RECORDS = "/var/lib/teleport/log/records"
# The IAM action of a request to S3, by AWS's reference.
ACTIONS = {
    rf"HEAD /{BUCKET}": "s3:ListBucket",
    rf"GET /{BUCKET}\?(?=.*list-type=2).*": "s3:ListBucket",
    rf"GET /{BUCKET}\?(?=.*versions).*": "s3:ListBucketVersions",
    rf"GET /{BUCKET}\?(?=.*uploads).*": "s3:ListBucketMultipartUploads",
    rf"GET /{BUCKET}/records/\S+versionId=.*": "s3:GetObjectVersion",
    rf"GET /{BUCKET}/records/\S+uploadId=.*": "s3:ListMultipartUploadParts",
    rf"(PUT|POST) /{BUCKET}/records/\S+": "s3:PutObject",
    rf"DELETE /{BUCKET}/records/\S+uploadId=.*": "s3:AbortMultipartUpload",
}


def moves(site: Site, **changes: str) -> None:
    """To another instance, as `pulumi up` would."""
    site.host.power_off()
    site.host = site.new_host(**changes)
    run = site.host.start("teleport-bootstrap", timeout=120)
    assert run.code == 0, run
    assert site.access().code == 0


class Recordings:
    """What an auditor sees of them, and where they are."""

    def __init__(self, site: Site) -> None:
        self.site, self.sessions = site, dict[str, str]()
        self.auditor = site.person("olga", ("acme", "audit"))
        self.auditor.sign_in()

    def record(self, login: str) -> Person:
        """A person's only session, in which they say their name."""
        person = self.site.person(login, ("acme", "dev"))
        person.sign_in()
        session = person.open_shell()
        session.sendline(f"echo {login}-$((40 + 2))")
        session.expect_exact(f"{login}-42")
        session.sendline("exit")
        session.expect(pexpect.EOF)
        assert session.wait() == 0
        return person

    def wait(self, login: str) -> None:
        """Until that is listed and played."""

        def found() -> list[str]:
            listed = json.loads(self.auditor.can("tsh", "recordings", "ls", "--format=json"))
            return [item["sid"] for item in listed if item["user"] == login]

        wait_for(found, f"no recording of {login} is listed")
        (self.sessions[login],) = found()
        wait_for(lambda: self.is_played(login), f"the recording of {login} is not played")

    def is_played(self, login: str) -> bool:
        said = self.auditor.run("tsh", "play", "--format=text", self.sessions[login]).stdout
        assert f"{login}-42" in said or "was not found" in said, said
        return f"{login}-42" in said

    def is_on_the_volume(self, login: str) -> bool:
        return f"{self.sessions[login]}.tar" in self.site.host.sh(f"ls {RECORDS}").split()

    def is_in_the_bucket(self, login: str) -> bool:
        found = self.site.world.aws("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return f"records/{self.sessions[login]}.tar" in [item["Key"] for item in found]


@pytest.fixture(scope="module")
def recordings(site: Site) -> Iterator[Recordings]:
    """Vera was recorded on the volume. From then on, recordings are kept in the bucket, and Teleport has started."""
    site.up()
    made = Recordings(site)
    made.record("vera")
    made.wait("vera")
    s3, place = site.world.aws("s3"), {"LocationConstraint": site.host.config.region}
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    site.world.clear()
    moves(site, recordings_url=f"s3://{BUCKET}/records")
    yield made
    moves(site)


def test_what_was_recorded_on_the_volume_is_copied_and_played(recordings: Recordings) -> None:
    assert not recordings.is_played("vera")
    run = recordings.site.host.start("teleport-recordings")
    assert run.code == 0, run
    assert recordings.is_played("vera")
    assert recordings.is_in_the_bucket("vera")
    assert recordings.is_on_the_volume("vera")


def test_new_sessions_are_recorded_in_the_bucket_only(recordings: Recordings) -> None:
    recordings.record("walt")
    recordings.wait("walt")
    assert recordings.is_in_the_bucket("walt")
    assert not recordings.is_on_the_volume("walt")


def test_while_s3_is_away_sessions_are_kept_on_the_volume(recordings: Recordings) -> None:
    fault = recordings.site.world.fault(f"aws (PUT|POST) /{BUCKET}/", "fail", status=503)
    recordings.record("xena")
    wait_for(fault.reached.is_set, "Teleport does not try to upload it")
    fault.times = 0
    recordings.wait("xena")
    assert recordings.is_in_the_bucket("xena")


def test_without_room_on_the_volume_there_is_still_no_session(recordings: Recordings) -> None:
    yuri, host = recordings.record("yuri"), recordings.site.host
    recordings.wait("yuri")
    host.sh("fallocate -l 1G /var/lib/teleport/full || cat /dev/zero >/var/lib/teleport/full", check=False)
    try:
        session = yuri.spawn(*SHELL, "-n", "shop", "web", "--", "sh", "-i")
        session.expect(pexpect.EOF)
        assert "no space left on device" in (session.before or "")
        assert session.wait() != 0
    finally:
        host.sh("rm /var/lib/teleport/full")


def test_the_host_may_do_what_teleport_did_and_no_more(recordings: Recordings) -> None:
    requests = [request[4:] for request in recordings.site.world.requests if f"/{BUCKET}" in request]
    done = {
        next((name for form, name in ACTIONS.items() if re.fullmatch(form, request)), request) for request in requests
    }
    arn = f"arn:aws:s3:::{BUCKET}"
    statements = permissions("arn", "arn", recordings_arn=arn)["Statement"]
    allowed = {action for s in statements if arn in s["Resource"] for action in s["Action"]}
    assert done <= allowed
    # A day after a session that nobody ended, Teleport looks for its upload, and completes or aborts it.
    later = {"s3:AbortMultipartUpload", "s3:ListBucketMultipartUploads", "s3:ListMultipartUploadParts"}
    assert allowed - done <= later


def test_back_on_the_volume_what_is_in_the_bucket_is_not_played(recordings: Recordings) -> None:
    moves(recordings.site)
    assert recordings.is_played("vera")
    assert not recordings.is_played("walt")
    recordings.record("zoe")
    recordings.wait("zoe")
    assert recordings.is_on_the_volume("zoe")
