"""One world for all tests, and a host for each."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.boot.rig import BOOT, Host, Rig, World, build_or_skip

NUMBERS = count(1)  # the first boot has 0


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = build_or_skip(lambda: World(tmp_path_factory.mktemp("world")))
    yield made
    made.close()


@pytest.fixture
def rig(world: World, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(world, tmp_path, next(NUMBERS))
    yield made
    made.close()


@pytest.fixture
def bare(rig: Rig) -> Host:
    """A new instance, with an empty volume."""
    return rig.host(rig.volume())


@pytest.fixture(scope="package")
def first_boot(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One first boot. Every test that starts from a running proxy gets a copy of its disks."""
    made = Rig(world, tmp_path_factory.mktemp("first"), 0)
    host = made.host(made.volume())
    host.succeed(BOOT)
    host.sh("systemctl stop teleport.service; umount /var/lib/teleport")
    host.power_off()
    yield made
    made.close()


@pytest.fixture
def running(rig: Rig, first_boot: Rig) -> Host:
    """An instance after its first boot: Teleport serves a self-signed certificate, and there is no role."""
    original = first_boot.hosts[0]
    host = rig.add(original.config, rig.volume(first_boot.volumes[0].image))
    rig.world.run("cp", "-a", original.files / "upper", host.files)
    host.power_on()
    host.resume()
    return host


@pytest.fixture(params=["2.6.0", "newest"])
def certbot(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def either(certbot: str, running: Host) -> Host:
    """A running host, with the certbot of Amazon Linux 2023 or with the newest."""
    if certbot == "newest":
        running.use_newest_certbot()
    return running
