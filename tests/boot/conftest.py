"""One world for all tests; a host of its own for each."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.settings import Settings
from sandbox.binaries import ServersMissingError
from tests.boot.rig import (
    ACME_SERVER,
    CDN,
    REGION,
    VERSION,
    Host,
    Volume,
    World,
    libfaketime,
    tool,
    with_changes,
)
from userdata import HostConfig


def missing() -> str:
    """What this machine lacks for the rig, in one line; empty when nothing."""
    if os.geteuid():
        return "the boot rig makes namespaces, mounts and loop devices: run it as root"
    packages = {"mkfs.xfs": "xfsprogs", "losetup": "mount", "unshare": "util-linux", "curl": "curl", "ip": "iproute2"}
    lacking_here = [name for name in ("aws", "certbot") if not tool(name)]
    if lacking_here:
        return f"not in the development environment: {', '.join(lacking_here)} (uv sync)"
    lacking = [package for tool, package in packages.items() if not shutil.which(tool)]
    lacking += [] if libfaketime() else ["faketime"]
    return f"apt-get install {' '.join(lacking)}" if lacking else ""


def give_up(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if reason := missing():
        give_up(reason)
    try:
        made = World(tmp_path_factory.mktemp("world"))
    except ServersMissingError as error:
        give_up(str(error))
        raise
    yield made
    made.close()


class Rig:
    """Makes hosts and volumes, and takes them away after the test."""

    def __init__(self, world: World, folder: Path, number: int) -> None:
        self.world, self.folder, self.number = world, folder, number
        self.hosts: list[Host] = []
        self.volumes: list[Volume] = []

    def config(self, **changes: object) -> HostConfig:
        defaults = HostConfig(
            settings=Settings(cluster_name="demo", acme_email="ops@example.org", acme_server=ACME_SERVER),
            stack=f"s{self.number}",
            region=REGION,
            hostname=f"h{self.number}.example.org",
            public_ip="203.0.113.5",
            volume_id="vol-0123456789abcdef0",
            parameters_path=f"/teleport-eks/s{self.number}",
            teleport_cdn=f"http://127.0.0.1:{CDN}",
        )
        return with_changes(defaults, **{"teleport_version": VERSION, "maintenance_window": "none", **changes})

    def volume(self, image: Path | None = None) -> Volume:
        target = self.folder / f"volume-{len(self.volumes)}"
        if image:
            subprocess.run(["cp", "--sparse=always", image, target], check=True)
        self.volumes.append(Volume(target))
        return self.volumes[-1]

    def host(self, volume: Volume | None = None, **changes: object) -> Host:
        """A new instance, on, with its user data applied and nothing started."""
        name = f"h{self.number}-{len(self.hosts)}"
        self.hosts.append(Host(self.world, name, self.config(**changes), volume))
        self.hosts[-1].power_on()
        self.hosts[-1].first_boot()
        return self.hosts[-1]

    def parameters(self, host: Host, **values: object) -> None:
        """Makes the stack's SSM parameters exactly these: role__dev={...}, connector={...}, secret="..."."""
        path = host.config.parameters_path
        with self.world.inside():
            ssm = self.world.aws("ssm")
            old = ssm.get_parameters_by_path(Path=path, Recursive=True)["Parameters"]
            if old:
                ssm.delete_parameters(Names=[parameter["Name"] for parameter in old])
            for key, value in values.items():
                name = {"connector": "github-connector", "secret": "github-client-secret"}.get(key)
                ssm.put_parameter(
                    Name=f"{path}/{name or key.replace('role__', 'roles/')}",
                    Value=value if isinstance(value, str) else json.dumps(value),
                    Type="SecureString" if key == "secret" else "String",
                )

    def close(self) -> None:
        self.world.clear()
        for host in self.hosts:
            self.parameters(host)
        for host in self.hosts:
            host.power_off()
            self.world.run("rm", "-rf", host.files)
        for volume in self.volumes:
            volume.detach()
            volume.image.unlink()


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    return iter(range(1, 1_000_000))


@pytest.fixture
def rig(world: World, tmp_path: Path, numbers: Iterator[int]) -> Iterator[Rig]:
    world.public_ip = "203.0.113.5"
    made = Rig(world, tmp_path, next(numbers))
    yield made
    made.close()


@pytest.fixture
def bare(rig: Rig) -> Host:
    """An instance as EC2 hands it over, with an empty volume."""
    return rig.host(rig.volume())


@pytest.fixture(scope="session")
def first_boot(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One first boot, whose disks are copied for every test that starts from a running proxy."""
    world.public_ip = "203.0.113.5"
    made = Rig(world, tmp_path_factory.mktemp("first"), 0)
    host = made.host(made.volume())
    run = host.start("teleport-bootstrap")
    assert run.code == 0, run
    host.sh("systemctl stop teleport.service; umount /var/lib/teleport")
    host.power_off()
    yield made
    made.close()


@pytest.fixture
def running(rig: Rig, first_boot: Rig) -> Host:
    """An instance whose first boot went well: Teleport serves its self-signed pair, no role is there."""
    original = first_boot.hosts[0]
    host = Host(rig.world, f"h{rig.number}", original.config, rig.volume(first_boot.volumes[0].image))
    rig.hosts.append(host)
    rig.world.run("cp", "-a", original.files / "upper", host.files)
    host.power_on()
    host.resume()
    return host
