"""Stand-in for Teleport's `teleport` and `tctl`. It is not Teleport and never says so.

What it does like Teleport: reads its configuration strictly, wants the key pairs and the kubeconfig
when it starts, refuses a chain that the host does not trust, makes its certificate authority once
in data_dir, serves /webapi/ping with the configured pair and reads that again at the interval,
keeps the resources that `tctl create` gives it, and writes a new revision at each change.
"""

import http.server
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, "@@CHECKOUT@@")
VERSION = "@@VERSION@@"

from tests.boot import strict  # noqa: E402


def die(text) -> NoReturn:
    print(f"ERROR: {text}", file=sys.stderr, flush=True)
    sys.exit(1)


def configuration(path):
    text = Path(path).read_text()
    errors = strict.check_config(text)
    if errors:
        die("; ".join(errors))
    return strict.load(text)


def seconds(duration):
    return float(os.environ.get("RIG_RELOAD") or {"s": 1, "m": 60, "h": 3600}[duration[-1]] * int(duration[:-1]))


def load_pair(proxy):
    """A TLS context with the pair that is configured now. Fails like Teleport does at its start."""
    pair = proxy["https_keypairs"][0]
    for name in ("key_file", "cert_file"):
        if not Path(pair[name]).exists():
            raise ValueError(f"https private key or certificate does not exist: {pair[name]}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair["cert_file"], pair["key_file"])
    chain = Path(pair["cert_file"]).read_text().count("BEGIN CERTIFICATE")
    names = subprocess.run(
        ["openssl", "x509", "-in", pair["cert_file"], "-noout", "-subject_hash", "-issuer_hash"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    if chain > 1 or names[0] != names[1]:
        verify = ["openssl", "verify", "-untrusted", pair["cert_file"], pair["cert_file"]]
        if subprocess.run(verify, capture_output=True, check=False).returncode:
            raise ValueError("unable to verify HTTPS certificate chain")
    return context


def check_kubeconfig(path):
    try:
        config = strict.load(Path(path).read_text())
        names = [context["name"] for context in config["contexts"]]
        commands = [user["user"]["exec"]["command"] for user in config["users"]]
    except (OSError, KeyError, TypeError, strict.yaml.YAMLError) as error:
        die(f"kubeconfig {path}: {error!r}")
    if not names or [name for name in names if re.search("[:/@]", name)]:
        die(f"kubeconfig has no context that can be served: {names}")
    if commands != ["aws"]:
        die(f"kubeconfig runs {commands}")


def serve(config_file, pid_file):
    config = configuration(config_file)
    data = Path(config["teleport"]["data_dir"])
    check_kubeconfig(config["kubernetes_service"]["kubeconfig_file"])
    proxy = config["proxy_service"]
    try:
        served = {"context": load_pair(proxy)}
    except (ValueError, ssl.SSLError, OSError) as error:
        die(str(error))
    authority = data / "ca"
    if not authority.exists():
        authority.write_text(uuid.uuid4().hex)

    class Ping(http.server.BaseHTTPRequestHandler):
        def setup(self):
            self.request = served["context"].wrap_socket(self.request, server_side=True)
            super().setup()

        def do_GET(self):
            body = json.dumps(
                {"server_version": VERSION, "cluster_name": config["auth_service"]["cluster_name"],
                 "stand-in": True, "ca": authority.read_text()}
            ).encode()  # fmt: skip
            self.send_response(200 if self.path == "/webapi/ping" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass  # a client that does not trust the pair hangs up

    def reload_pairs():
        while True:
            time.sleep(seconds(proxy["https_keypairs_reload_interval"]))
            try:
                served["context"] = load_pair(proxy)
            except (ValueError, ssl.SSLError, OSError) as error:
                print(f"WARN: pairs not reloaded: {error}", flush=True)

    host, _, port = proxy["web_listen_addr"].rpartition(":")
    server = Server((host, int(port)), Ping)
    Path(pid_file).write_text(str(os.getpid()))
    threading.Thread(target=reload_pairs, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server.serve_forever()


def fault(arguments):
    """The same switch as in standins/faulty, for tctl."""
    file = Path("/run/rig/tctl.fault")
    if not file.exists():
        return
    kind, times, *text = file.read_text().split(maxsplit=2)
    if int(times) <= 0 or (text and text[0].strip() not in " ".join(arguments)):
        return
    file.write_text(" ".join([kind, str(int(times) - 1), *text]))
    Path("/run/rig/tctl.reached").touch()
    if kind == "hang":
        time.sleep(1000)
    if kind == "rubbish":
        print("<html>rubbish</html>")
        sys.exit(0)
    if kind == "echo":  # a failure that repeats what it was given
        die(sys.stdin.read())
    die("made to fail")


def tctl(config_file, verb, *rest):
    fault([verb, *rest])
    config = configuration(config_file)
    try:
        os.kill(int(Path(config["teleport"]["pid_file"]).read_text()), 0)
    except (OSError, ValueError):
        die("the auth service is not running")
    store = Path(config["teleport"]["data_dir"], "backend.json")
    kept = json.loads(store.read_text()) if store.exists() else {}
    if verb == "get":
        kind, _, name = rest[0].partition("/")
        found = [
            r for r in kept.values() if r["kind"] == kind.removesuffix("s") and name in ("", r["metadata"]["name"])
        ]
        for item in found:
            item["spec"].pop("client_secret", None)
        print(json.dumps(found))
        return
    if verb == "create":
        resource = json.loads(sys.stdin.read())
        key = f"{resource.get('kind')}/{(resource.get('metadata') or {}).get('name')}"
        errors = strict.check_resource(resource)
        for mapping in resource["spec"].get("teams_to_roles", []):
            errors += [f"role {role} is not found" for role in mapping["roles"] if f"role/{role}" not in kept]
        if key in kept and "-f" not in rest:
            errors.append(f"{key} already exists")
        if errors:
            die("; ".join(errors))
        resource["metadata"]["revision"] = uuid.uuid4().hex
        if resource["kind"] == "role":
            resource["spec"].setdefault("options", {}).setdefault("port_forwarding", True)  # Teleport fills in defaults
        kept[key] = resource
        changed = f"create {key}"
    elif verb == "rm":
        if rest[0] not in kept:
            die(f"{rest[0]} is not found")
        name = rest[0].removeprefix("role/")
        users = [
            r for r in kept.values() if r["kind"] == "github" for m in r["spec"]["teams_to_roles"] if name in m["roles"]
        ]
        if rest[0].startswith("role/") and users:
            die(f"role {name} is still in use")
        del kept[rest[0]]
        changed = f"rm {rest[0]}"
    else:
        die(f"tctl {verb} is not known to this stand-in")
    store.with_suffix(".new").write_text(json.dumps(kept))
    store.with_suffix(".new").replace(store)
    with Path("/run/rig/tctl.log").open("a") as log:
        log.write(changed + "\n")


def main():
    arguments = sys.argv[1:]
    if Path(sys.argv[0]).name == "tctl":
        return tctl(arguments[0].removeprefix("--config="), *arguments[1:])
    if arguments == ["version"]:
        return print(f"Teleport v{VERSION} stand-in")
    if arguments[:2] == ["configure", "--test"]:
        configuration(arguments[2])
        return print("OK")
    if arguments[0] == "start":
        options = dict(argument.split("=", 1) for argument in arguments[1:])
        return serve(options["--config"], options["--pid-file"])
    return die(f"{arguments} is not known to this stand-in")


main()
