"""Stand-in systemctl: runs units as systemd would, as far as the host's units go.

Conditions, environment files, ExecStart, the runtime and log directories, and of the sandboxing
what can break a script: the capability bounding set, no-new-privileges and the read-only file
system. Does not restart anything by itself, and starts no timer: the tests do both, in their time.
"""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

STATE = Path("/run/rig")
LOGS = Path("/var/log/rig")
EXTRA = Path("/etc/rig.env")  # what a drop-in would set: short pauses, where the stand-ins listen
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"


def settings(unit):
    found = {}
    for line in (Path("/etc/systemd/system") / unit).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def environment(values):
    result = {"PATH": PATH, "LANG": "C.UTF-8"}
    for name in [*values.get("EnvironmentFile", []), str(EXTRA)]:
        path = Path(name.lstrip("-"))
        if not path.exists():
            if name.startswith("-") or path == EXTRA:
                continue
            sys.exit(f"{path} does not exist")
        for line in path.read_text().splitlines():
            if line and not line.startswith("#"):
                key, _, value = line.partition("=")
                result[key] = "".join(shlex.split(value))
    return result


def sandboxed(values, command):
    """The command under the unit's restrictions, its file system prepared in a mount namespace."""
    result = list(command)
    if "NoNewPrivileges" in values:
        kept = "".join(f",+{name.removeprefix('CAP_').lower()}" for name in values["CapabilityBoundingSet"][0].split())
        result = ["setpriv", "--no-new-privs", f"--bounding-set=-all{kept}", *result]
    if values.get("ProtectSystem") == ["strict"]:
        writable = [*values.get("ReadWritePaths", [""])[0].split()]
        writable += ["/tmp", str(STATE), *(f"/run/{name}" for name in values.get("RuntimeDirectory", []))]  # noqa: S108
        writable += [f"/var/log/{name}" for name in values.get("LogsDirectory", [])]
        # A mount of its own keeps a directory writable when the file system it is in no longer is.
        script = "".join(f"mount --bind {path} {path}\n" for path in writable)
        script += "mount -o remount,bind,ro / && mount -o remount,bind,ro /run\n"
        # No tmpfs on /tmp and /root as on a real host: the rig's own Python may be there.
        result = ["unshare", "--mount", "sh", "-ec", f'{script}exec "$@"', "sh", *result]
    return result


def is_alive(unit):
    try:
        os.kill(int((STATE / f"{unit}.pid").read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def start(unit, block):
    values = settings(unit)
    if unit.endswith(".timer"):
        with (STATE / "timers").open("a") as timers:
            timers.write(unit + "\n")
        return 0
    for path in [*values.get("AssertPathIsMountPoint", []), *values.get("ConditionPathIsMountPoint", [])]:
        if not os.path.ismount(path):
            print(f"{unit}: {path} is not a mount point", file=sys.stderr)
            return 1 if "AssertPathIsMountPoint" in values else 0
    simple = values.get("Type") == ["simple"]
    if simple and is_alive(unit):
        return 0
    if not simple and not block:
        with (STATE / "queued").open("a") as queued:
            queued.write(unit + "\n")
        return 0
    for name in values.get("RuntimeDirectory", []):
        Path("/run", name).mkdir(mode=0o700, exist_ok=True)
    for name in values.get("LogsDirectory", []):
        Path("/var/log", name).mkdir(mode=0o700, exist_ok=True)
    log = (LOGS / f"{unit}.log").open("a")
    process = subprocess.Popen(
        sandboxed(values, shlex.split(values["ExecStart"][0])),
        env=environment(values),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=log if simple else None,
        stderr=log if simple else None,
        start_new_session=True,
    )
    (STATE / f"{unit}.pid").write_text(str(process.pid))
    return 0 if simple else process.wait()


def stop(unit):
    # By the session, because timeout(1) makes process groups of its own. Until they are gone, and
    # with them their ports.
    if is_alive(unit):
        kill = ["pkill", "-KILL", "-s", (STATE / f"{unit}.pid").read_text()]
        while subprocess.run(kill, check=False).returncode == 0:
            time.sleep(0.01)
    (STATE / f"{unit}.pid").unlink(missing_ok=True)


def main(verb, *rest):
    STATE.mkdir(exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    units = [name for name in rest if not name.startswith("-")]
    code = 0
    if verb == "reboot":
        (STATE / "reboot").touch()
    for unit in units:
        if verb in ("stop", "restart", "kill"):
            stop(unit)
        if verb in ("start", "restart") or (verb == "enable" and "--now" in rest):
            if unit.startswith("dnf-"):
                continue
            code = start(unit, "--no-block" not in rest) or code
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
