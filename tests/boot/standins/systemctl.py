"""Stand-in systemctl: runs the host's units as systemd does.

It knows conditions, environment files, ExecStart, the runtime and log directories, and the sandboxing that can break a
script: the user, capabilities, no-new-privileges and the read-only file system. It restarts no unit and runs no timer:
tests do.
"""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

STATE, LOGS = Path("/run/rig"), Path("/var/log/rig")
EXTRA = "/etc/rig.env"  # short pauses, and where the stand-ins listen
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"


def read_unit(unit):
    """Each key with its values. A value of several words counts as several values, except a command."""
    found = {}
    file = Path("/etc/systemd/system", unit)
    texts = [part.read_text() for part in (file, *Path(f"{file}.d").glob("*.conf"))]
    for line in "\n".join(texts).splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).extend([value] if key.startswith("Exec") else value.split())
    return found


def read_environment(values):
    result = {"PATH": PATH, "LANG": "C.UTF-8"}
    for name in [*values.get("EnvironmentFile", []), f"-{EXTRA}"]:
        path = Path(name.lstrip("-"))
        if not path.exists() and not name.startswith("-"):
            sys.exit(f"{path} does not exist")
        for line in path.read_text().splitlines() if path.exists() else []:
            if line and not line.startswith("#"):
                key, _, value = line.partition("=")
                result[key] = "".join(shlex.split(value))
    return result


def add_sandbox(values, command):
    """The command with the unit's restrictions. A mount namespace has its read-only file system."""
    if "DynamicUser" in values:
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    if "NoNewPrivileges" in values:
        kept = "".join(f",+{name.removeprefix('CAP_').lower()}" for name in values["CapabilityBoundingSet"])
        command = ["setpriv", "--no-new-privs", f"--bounding-set=-all{kept}", *command]
    if values.get("ProtectSystem") == ["strict"]:
        writable = [*values.get("ReadWritePaths", []), "/tmp", str(STATE)]  # noqa: S108
        writable += [f"/run/{name}" for name in values.get("RuntimeDirectory", [])]
        writable += [f"/var/log/{name}" for name in values.get("LogsDirectory", [])]
        # A directory with a mount of its own stays writable when the file system around it does not.
        script = "".join(f"mount --bind {path} {path}\n" for path in writable)
        script += "mount -o remount,bind,ro / && mount -o remount,bind,ro /run\n"
        # A real host has a tmpfs on /tmp and /root. Here the rig's own Python may be there.
        command = ["unshare", "--mount", "sh", "-ec", f'{script}exec "$@"', "sh", *command]
    return command


def is_alive(unit):
    try:
        os.kill(int((STATE / f"{unit}.pid").read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def waits(values):
    """systemd starts a unit when those in its After= have started. A oneshot unit has when it ends."""
    return any(is_alive(other) and read_unit(other).get("Type") == ["oneshot"] for other in values.get("After", []))


def note(file, unit):
    with (STATE / file).open("a") as notes:
        notes.write(f"{unit}\n")
    return 0


def start(unit, block):
    values = read_unit(unit)
    if unit.endswith(".timer"):
        return note("timers", unit)
    for path in [*values.get("AssertPathIsMountPoint", []), *values.get("ConditionPathIsMountPoint", [])]:
        # Python's ismount() does not see a mount of a directory of the same file system. systemd does.
        if subprocess.run(["mountpoint", "-q", path], check=False).returncode:
            print(f"{unit}: {path} is not a mount point", file=sys.stderr)
            return 1 if "AssertPathIsMountPoint" in values else 0
    for wanted in values.get("Wants", []):
        if wanted.endswith(".service"):
            start(wanted, False)
    simple = values.get("Type") == ["simple"]
    if simple and is_alive(unit):
        return 0
    if not block and (not simple or waits(values)):
        return note("queued", unit)
    while waits(values):
        time.sleep(0.1)
    for command in values.get("ExecCondition", []):
        condition = add_sandbox(values, shlex.split(command))
        code = subprocess.run(condition, env=read_environment(values), cwd="/", check=False).returncode
        if code:  # the unit is skipped; other codes are failures
            return 0 if 0 < code < 255 else 1
    for parent, key in (("/run", "RuntimeDirectory"), ("/var/log", "LogsDirectory")):
        for name in values.get(key, []):
            Path(parent, name).mkdir(mode=0o700, exist_ok=True)
    with (LOGS / f"{unit}.log").open("a") as log:
        process = subprocess.Popen(
            add_sandbox(values, shlex.split(values["ExecStart"][0])),
            env=read_environment(values),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log if simple else None,
            stderr=log if simple else None,
            start_new_session=True,
        )
    (STATE / f"{unit}.pid").write_text(str(process.pid))
    if simple:
        return 0
    code = process.wait()
    (STATE / f"{unit}.code").write_text(str(code))
    return code


def stop(unit):
    # By session, because timeout(1) makes process groups of its own. It returns when all are gone, and their ports.
    if is_alive(unit):
        kill = ["pkill", "-KILL", "-s", (STATE / f"{unit}.pid").read_text()]
        while subprocess.run(kill, check=False).returncode == 0:
            time.sleep(0.01)
    (STATE / f"{unit}.pid").unlink(missing_ok=True)


def show(pattern):
    """Two properties of each unit. The real systemd would have started a unit with Restart= again."""
    for unit in sorted(path.name for path in Path("/etc/systemd/system").glob(pattern)):
        code = STATE / f"{unit}.code"
        failed = not is_alive(unit) and code.exists() and code.read_text() != "0"
        again = failed and "Restart" in read_unit(unit)
        state = "activating" if again else "failed" if failed else "active" if is_alive(unit) else "inactive"
        print(f"ActiveState={state}\nNRestarts={int(again)}\n")


def main(verb, *rest):
    LOGS.mkdir(parents=True, exist_ok=True)
    if verb == "show":
        show(rest[-1])
        return 0
    if verb == "reboot":
        (STATE / "reboot").touch()
    code = 0
    for unit in (name for name in rest if not name.startswith(("-", "dnf-"))):
        if verb == "try-restart" and not is_alive(unit):
            continue
        if verb in ("stop", "restart", "try-restart", "kill"):
            stop(unit)
        if verb in ("start", "restart", "try-restart") or (verb == "enable" and "--now" in rest):
            code = start(unit, "--no-block" not in rest) or code
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
