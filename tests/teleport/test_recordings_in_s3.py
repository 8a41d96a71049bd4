"""`recordings: s3` on a live proxy, and the way back: what is played, from where, and what Teleport asks S3 for."""

import json
import re
from collections.abc import Iterator

import pytest

from components.identity import permissions
from tests.boot.rig import wait_for
from tests.teleport.people import Person, Session
from tests.teleport.stage import Site

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


def action(request: str) -> str:
    """The request itself, if it is none of those."""
    return next((name for pattern, name in ACTIONS.items() if re.fullmatch(pattern, request)), request)


def says(person: Person, word: str) -> str:
    """A session in a pod that shows this word. Returns its id."""
    person.sign_in()
    session = person.shell()
    session.type(f"echo said-$((40 + 2))-{word}")
    session.read(f"said-42-{word}")
    session.type("exit")
    assert session.wait() == 0
    session.close()
    return person.login


class Recordings:
    def __init__(self, site: Site) -> None:
        self.site = site
        self.auditor = site.person("olga", ("acme", "audit"))

    def of(self, login: str) -> str:
        """The id of the one recording of this person, once it is uploaded."""

        def found() -> list[str]:
            listed = json.loads(self.auditor.can("tsh", "recordings", "ls", "--format=json"))
            return [item["sid"] for item in listed if item["user"] == login]

        wait_for(found, f"no recording of {login} is listed")
        (session,) = found()
        return session

    def played(self, session: str) -> str:
        return self.auditor.run("tsh", "play", "--format=text", session).stdout

    def objects(self) -> dict[str, int]:
        with self.site.world.inside():
            found = self.site.world.aws("s3").list_object_versions(Bucket=BUCKET).get("Versions", [])
        return {item["Key"]: item["Size"] for item in found}

    def files(self) -> list[str]:
        return self.site.host.sh(f"ls {RECORDS} | grep tar$ || true").split()


def boots(site: Site, **changes: object) -> None:
    site.host.power_off()
    site.host = site.new_host(**changes)
    run = site.host.start("teleport-bootstrap", timeout=120)
    assert run.code == 0, run
    assert site.access().code == 0


def test_explore(site: Site) -> None:
    site.up()
    r = Recordings(site)
    r.auditor.sign_in()
    vera = site.person("vera", ("acme", "dev"))
    says(vera, "vera")
    old = r.of("vera")
    wait_for(lambda: "said-42-vera" in r.played(old), "x")
    print(r.site.host.sh(f"find {RECORDS} /var/lib/teleport/log/upload"))
    with site.world.inside():
        s3 = site.world.aws("s3")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    site.world.requests.clear()
    boots(site, recordings_url=f"s3://{BUCKET}/records")
    print("PLAY", r.played(old))
    run = site.host.start("teleport-recordings")
    print(run)
    print("PLAY", r.played(old))
    print(r.objects(), r.files())
    run = site.host.start("teleport-recordings")
    print(run)
    walt = site.person("walt", ("acme", "dev"))
    says(walt, "walt")
    new = r.of("walt")
    wait_for(lambda: "said-42-walt" in r.played(new), "y")
    print(r.objects(), r.files())
    print("\n".join(q for q in site.world.requests if BUCKET in q))
    print(
        r.site.host.sh(
            f"find {RECORDS} /var/lib/teleport/log/upload; ls -la /var/lib/teleport/log; grep -i 's3' /var/log/rig/teleport.service.log | head -20; cat /run/rig/queued"
        )
    )
    site.host.sh("fallocate -l 1G /var/lib/teleport/full || cat /dev/zero >/var/lib/teleport/full", check=False)
    session = Session(walt.command("kubectl", "exec", "-it", "-n", "shop", "web", "--", "sh", "-i"))
    print("FULL", session.wait(), session.seen)
    session.close()
    site.host.sh("rm /var/lib/teleport/full")
    boots(site)
    print("BACK", r.played(old)[-200:], r.played(new)[-200:])
    assert 0
