"""People at a laptop of their own: tsh, kubectl and a browser."""

import html
import re
import subprocess
from pathlib import Path

import pexpect

from tests.boot.rig import Host

WITHIN = 60  # seconds; what takes longer does not happen
SHELL = "kubectl", "exec", "-it"


class Person:
    """Somebody with a GitHub login. What they are signed in to is in their home directory."""

    def __init__(self, laptop: Host, login: str, login_command: str, tools: list[Path]) -> None:
        self.laptop, self.login, self.home = laptop, login, f"/home/{login}"
        self.login_command = login_command
        self.path = ":".join([*map(str, tools), "/usr/sbin:/usr/bin:/sbin:/bin"])
        laptop.sh(f"mkdir -p {self.home}")

    def command(self, *words: str) -> list[str]:
        values = {
            "HOME": self.home,
            "KUBECONFIG": f"{self.home}/kubeconfig",
            "PATH": self.path,
            "SSL_CERT_FILE": "/etc/rig-trusted.pem",
            "TERM": "dumb",
        }
        return self.laptop.command("env", "-i", *(f"{key}={value}" for key, value in values.items()), *words)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command and what it said, errors included."""
        out, errors = subprocess.PIPE, subprocess.STDOUT
        return subprocess.run(self.command(*words), stdin=subprocess.DEVNULL, stdout=out, stderr=errors, text=True,
                              timeout=WITHIN, check=False)  # fmt: skip

    def can(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, f"{self.login}: {' '.join(words)}: {done.stdout}"
        return done.stdout

    def cannot(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode != 0, f"{self.login} can: {' '.join(words)}: {done.stdout}"
        return done.stdout

    def sign_in(self) -> str:
        """`tsh login` and a kubeconfig, if they may see the cluster. Returns what tsh says of them."""
        said = self.try_to_sign_in()
        assert "Logged in as" in said, said
        self.run("tsh", "kube", "login", "demo")
        return said

    def is_refused(self) -> str:
        said = self.try_to_sign_in()
        assert "Logged in as" not in said, said
        return said

    def try_to_sign_in(self) -> str:
        """`tsh login` with the browser's part."""
        self.run("tsh", "logout")  # whoever is signed in already would only be told so
        command = self.command("timeout", str(WITHIN), *self.login_command.split(), "--auth=github", "--browser=none")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout
        said = ""
        for line in process.stdout:
            said += line
            if found := re.search(r"http://127\.0\.0\.1:\d+/\S+", line):
                said += self._browse(found[0])
        process.wait()
        return said

    def _browse(self, url: str) -> str:
        """To GitHub, where they are signed in, back to Teleport, and by its page to tsh. Returns the last answer."""
        page = self.run("curl", "-sSL", "-b", f"login={self.login}", url).stdout
        if refresh := re.search(r"URL='(http://127[^']+)'", page):
            return self.run("curl", "-sS", html.unescape(refresh[1])).stdout
        self.run("pkill", "tsh")  # it would wait for minutes; on this laptop there is no other
        return page

    def spawn(self, *words: str) -> pexpect.spawn:
        """A command at a terminal."""
        program, *arguments = self.command(*words)
        return pexpect.spawn(program, arguments, timeout=WITHIN, encoding="utf-8")

    def open_shell(self, pod: str = "web", namespace: str = "shop") -> pexpect.spawn:
        """A shell in a pod that shows its prompt."""
        session = self.spawn(*SHELL, "-n", namespace, pod, "--", "sh", "-i")
        session.expect_exact("# ")
        return session
