"""Stand-in for Teleport's `teleport` and `tctl`. It is not Teleport and never says so.

What it does like Teleport: reads its configuration strictly, wants the key pairs and the kubeconfig
when it starts, refuses a chain that the host does not trust, makes its certificate authority once
in data_dir, serves /webapi/find with the configured pair and reads that again at the interval,
answers /webapi/ping with an error until there is a GitHub connector, keeps the resources that `tctl
create` gives it, writes a new revision at each change, and does not delete a role that somebody
holds (`holders`). `tctl get` shows what was there a moment ago, as the auth service's cache does.
All of it was measured on Teleport 18.3.
"""

import base64
import contextlib
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
LAG = 0.3  # seconds
# There without anybody having made it, from 18.3 on.
HEALTH_CHECK = {
    "kind": "health_check_config",
    "version": "v1",
    "metadata": {"name": "default-kube", "revision": "d796f007"},
    "spec": {"match": {"kubernetes_labels": [{"name": "*", "values": ["*"]}]}},
}

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
        for cluster in config["clusters"]:
            ssl.PEM_cert_to_DER_cert(base64.b64decode(cluster["cluster"]["certificate-authority-data"]).decode())
    except (OSError, KeyError, TypeError, ValueError, strict.yaml.YAMLError) as error:
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
            answer = {"server_version": VERSION, "cluster_name": config["auth_service"]["cluster_name"],
                      "stand-in": True, "ca": authority.read_text()}  # fmt: skip
            status = 200 if self.path in ("/webapi/find", "/webapi/ping") else 404
            if self.path == "/webapi/ping" and not [key for key in stored(data) if key.startswith("github/")]:
                status, answer = 400, {"error": {"message": "no github connectors found"}}
            body = json.dumps(answer).encode()
            self.send_response(status)
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


def fault(arguments, given):
    """The same switch as in standins/faulty, for tctl; its TEXT may also be part of the standard input."""
    file = Path("/run/rig/tctl.fault")
    if not file.exists():
        return
    kind, times, *text = file.read_text().split(maxsplit=2)
    if int(times) <= 0 or (text and text[0].strip() not in " ".join(arguments) + given):
        return
    file.write_text(" ".join([kind, str(int(times) - 1), *text]))
    Path("/run/rig/tctl.reached").touch()
    if kind == "hang":
        time.sleep(1000)
    if kind == "rubbish":
        print("<html>rubbish</html>")
        sys.exit(0)
    if kind == "echo":  # a failure that repeats what it was given
        die(given)
    die("made to fail")


def tctl(config_file, verb, *rest):
    given = sys.stdin.read() if verb == "create" else ""
    fault([verb, *rest], given)
    config = configuration(config_file)
    try:
        os.kill(int(Path(config["teleport"]["pid_file"]).read_text()), 0)
    except (OSError, ValueError):
        die("the auth service is not running")
    data = Path(config["teleport"]["data_dir"])
    kept = stored(data)
    if verb == "get":
        print(json.dumps(get(rest[0], data)))
        return
    if verb == "create":
        resource = json.loads(given)
        key = f"{resource.get('kind')}/{(resource.get('metadata') or {}).get('name')}"
        errors = strict.check_resource(resource)
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
        if rest[0].removeprefix("role/") in holders():
            die("rpc error: code = Unknown desc = failed to delete a role that is still in use by a user, check the "
                "system server logs for more details")  # fmt: skip
        del kept[rest[0]]
        changed = f"rm {rest[0]}"
    else:
        die(f"tctl {verb} is not known to this stand-in")
    for name, content in (("backend.old.json", stored(data)), ("backend.json", kept)):
        (data / f"{name}.new").write_text(json.dumps(content))
        (data / f"{name}.new").replace(data / name)
    with Path("/run/rig/tctl.log").open("a") as log:
        log.write(changed + "\n")


def stored(data, name="backend.json"):
    try:
        return json.loads((data / name).read_text())
    except FileNotFoundError:
        return {}


def holders():
    """The roles of people who are signed in; tests write them."""
    path = Path("/run/rig/holders")
    return path.read_text().split() if path.exists() else []


def get(what, data):
    kind, _, name = what.partition("/")
    if kind not in strict.KINDS:
        die(f"unsupported resource: \"{kind}\" - resources should be expressed as 'type/name'")
    found = stored(data)
    with contextlib.suppress(FileNotFoundError):
        if time.time() - (data / "backend.json").stat().st_mtime < LAG:
            found = stored(data, "backend.old.json")
    found.setdefault("health_check_config/default-kube", HEALTH_CHECK)
    found = [r for r in found.values() if r["kind"] == kind and name in ("", r["metadata"]["name"])]
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
        configuration(arguments[2])
        return print("OK")
    if arguments[0] == "start":
        options = dict(argument.split("=", 1) for argument in arguments[1:])
        return serve(options["--config"], options["--pid-file"])
    return die(f"{arguments} is not known to this stand-in")


main()
