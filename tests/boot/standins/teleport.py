"""Stand-in for Teleport's `teleport` and `tctl`. It is not Teleport, and says so.

Like Teleport (all of this was measured with 18.3), it
- reads its configuration strictly, and starts only with a key pair and a kubeconfig that it can use;
- refuses a chain that the host does not trust, and reads the pair again if an interval for that is set;
- makes its certificate authority once, in data_dir;
- answers /webapi/ping with an error until there is a GitHub connector;
- keeps the resources of `tctl create`, with a new revision after each change (a bot has none);
- does not delete a role that somebody holds (`holders`);
- answers the first `tctl get` after a change with what was there before, as the auth service's cache does.
"""

import http.server
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, "@@CHECKOUT@@")
from tests.boot import strict

VERSION = "@@VERSION@@"
RUN = Path("/run/rig")
# Every Teleport has this one, from 18.3 on.
HEALTH_CHECK = {
    "kind": "health_check_config",
    "version": "v1",
    "metadata": {"name": "default-kube", "revision": "d796f007"},
    "spec": {"match": {"kubernetes_labels": [{"name": "*", "values": ["*"]}]}},
}
IN_USE = (
    "rpc error: code = Unknown desc = failed to delete a role that is still in use by a user, check the system server "
    "logs for more details"
)


def die(text) -> NoReturn:
    print(f"ERROR: {text}", file=sys.stderr, flush=True)
    sys.exit(1)


def read_configuration(path):
    text = Path(path).read_text()
    if errors := strict.check_config(text):
        die("; ".join(errors))
    return strict.load(text)


# -- teleport ------------------------------------------------------------------------------------


def load_pair(context, proxy):
    """Gives the configured pair to the TLS context. It fails as Teleport does at its start."""
    pair = proxy["https_keypairs"][0]
    cert = pair["cert_file"]
    names = ["openssl", "x509", "-in", cert, "-noout", "-subject_hash", "-issuer_hash"]
    subject, issuer = subprocess.run(names, capture_output=True, text=True, check=True).stdout.split()
    if subject != issuer or Path(cert).read_text().count("BEGIN CERTIFICATE") > 1:
        subprocess.run(["openssl", "verify", "-untrusted", cert, cert], capture_output=True, check=True)
    for each in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), context):  # what the first refuses, the second never gets
        each.load_cert_chain(cert, pair["key_file"])


def check_kubeconfig(path):
    config = strict.load(Path(path).read_text())
    names = [context["name"] for context in config["contexts"]]
    commands = [user["user"]["exec"]["command"] for user in config["users"]]
    if not names or re.search("[:/@]", "".join(names)) or commands != ["aws"]:
        die(f"kubeconfig has contexts {names} with commands {commands}")


def serve(config_file, pid_file):
    config = read_configuration(config_file)
    data, proxy = Path(config["teleport"]["data_dir"]), config["proxy_service"]
    check_kubeconfig(config["kubernetes_service"]["kubeconfig_file"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_pair(context, proxy)
    authority = data / "ca"
    if not authority.exists():
        authority.write_text(uuid.uuid4().hex)

    class Ping(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            cluster = config["auth_service"]["cluster_name"]
            answer = {"server_version": VERSION, "cluster_name": cluster, "stand-in": True, "ca": authority.read_text()}
            status = 200 if self.path in ("/webapi/find", "/webapi/ping") else 404
            if self.path == "/webapi/ping" and not any(key.startswith("github/") for key in read_backend(data)):
                status, answer = 400, {"error": {"message": "no github connectors found"}}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

    def reload_pairs():
        interval = proxy.get("https_keypairs_reload_interval")
        while interval:
            time.sleep(float(interval.rstrip("s")) if "REAL_TIMES" in os.environ else 0.3)
            try:
                load_pair(context, proxy)
            except (subprocess.CalledProcessError, OSError) as error:
                print(f"WARN: pair not reloaded: {error}", flush=True)

    host, _, port = proxy["web_listen_addr"].rpartition(":")
    server = http.server.ThreadingHTTPServer((host, int(port)), Ping)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    Path(pid_file).write_text(str(os.getpid()))
    threading.Thread(target=reload_pairs, daemon=True).start()
    server.serve_forever()


# -- tctl ----------------------------------------------------------------------------------------


def fail_if_told(arguments, given):
    """The same switch as in standins/faulty. Its TEXT may also be part of the standard input."""
    file = RUN / "tctl.fault"
    kind, times, *text = file.read_text().split(maxsplit=2) if file.exists() else ("", "0")
    if int(times) <= 0 or (text and text[0].strip() not in " ".join(arguments) + given):
        return
    file.write_text(" ".join([kind, str(int(times) - 1), *text]))
    (RUN / "tctl.reached").touch()
    if kind == "hang":
        time.sleep(1000)
    if kind == "rubbish":
        print("<html>rubbish</html>")
        sys.exit(0)
    die(given if kind == "echo" else "made to fail")


def tctl(config_file, verb, *rest):
    given = sys.stdin.read() if verb == "create" else ""
    fail_if_told([verb, *rest], given)
    config = read_configuration(config_file)
    try:
        os.kill(int(Path(config["teleport"]["pid_file"]).read_text()), 0)
    except (OSError, ValueError):
        die("the auth service is not running")
    data = Path(config["teleport"]["data_dir"])
    if verb == "get":
        print(json.dumps(get(rest[0], data)))
        return
    kept = read_backend(data)
    if verb == "create":
        resource = json.loads(given)
        key = f"{resource.get('kind')}/{(resource.get('metadata') or {}).get('name')}"
        errors = strict.check_resource(resource)
        if key in kept and "-f" not in rest:
            errors.append(f"{key} already exists")
        if errors:
            die("; ".join(errors))
        if resource["kind"] != "bot":
            resource["metadata"]["revision"] = uuid.uuid4().hex
        if resource["kind"] == "role":  # Teleport fills in defaults
            resource["spec"].setdefault("options", {}).setdefault("port_forwarding", True)
        kept[key] = resource
    elif verb == "rm":
        key = rest[0]
        if key not in kept:
            die(f"{key} is not found")
        holders = RUN / "holders"  # the roles of people who are signed in; tests write them
        if holders.exists() and key.removeprefix("role/") in holders.read_text().split():
            die(IN_USE)
        del kept[key]
    else:
        die(f"tctl {verb} is not known to this stand-in")
    write(data / "backend.old.json", read_backend(data))
    write(data / "backend.json", kept)
    with (RUN / "tctl.log").open("a") as log:
        log.write(f"{verb} {key}\n")


def read_backend(data, name="backend.json"):
    try:
        return json.loads((data / name).read_text())
    except FileNotFoundError:
        return {}


def write(path, content):
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content))
    new.replace(path)


def get(what, data):
    kind, _, name = what.partition("/")
    if kind not in strict.KINDS:
        die(f"unsupported resource: \"{kind}\" - resources should be expressed as 'type/name'")
    old = data / "backend.old.json"
    found = read_backend(data, old.name if old.exists() else "backend.json")
    old.unlink(missing_ok=True)
    found.setdefault("health_check_config/default-kube", HEALTH_CHECK)
    found = [item for item in found.values() if item["kind"] == kind and name in ("", item["metadata"]["name"])]
    if name and not found:
        die(f'"{kind}" "{name}" does not exist')
    for item in found:
        item["spec"].pop("client_secret", None)
    return found


def main():
    arguments = sys.argv[1:]
    if Path(sys.argv[0]).name == "tctl":
        return tctl(arguments[0].removeprefix("--config="), *arguments[1:])
    if arguments == ["version"]:
        return print(f"Teleport v{VERSION} stand-in")
    if arguments[:2] == ["configure", "--test"]:
        read_configuration(arguments[2])
        return print("OK")
    if arguments[0] == "start":
        options = dict(argument.split("=", 1) for argument in arguments[1:])
        return serve(options["--config"], options["--pid-file"])
    return die(f"{arguments} is not known to this stand-in")


main()
