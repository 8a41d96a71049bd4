"""The little of GitHub's API that the workflows need.

    python3 -m ci.github NUMBER < COMMENT

keeps one comment in the issue or pull request NUMBER: the one that begins with the same line as the standard input.
"""

import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

PAGE = 100


class Repository:
    """``GITHUB_REPOSITORY`` at ``GITHUB_API_URL``, as whoever ``GITHUB_TOKEN`` is."""

    def __init__(self) -> None:
        api = os.environ.get("GITHUB_API_URL", "https://api.github.com")
        self._url = f"{api}/repos/{os.environ['GITHUB_REPOSITORY']}"
        self._headers = {
            "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }

    def send(self, method: str, path: str, **fields: Any) -> Any:
        data = json.dumps(fields).encode() if fields else None
        request = urllib.request.Request(f"{self._url}/{path}", data, self._headers, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - GitHub's own address
            return json.load(response)

    def all(self, path: str) -> Iterator[dict]:
        """All of a list, over all of its pages."""
        for page in range(1, 1000):
            found = self.send("GET", f"{path}{'&' if '?' in path else '?'}per_page={PAGE}&page={page}")
            yield from found
            if len(found) < PAGE:
                return

    def keep_comment(self, number: int, body: str) -> None:
        """Writes the comment, over the earlier one with the same first line if there is one."""
        marker = body.partition("\n")[0]
        for comment in self.all(f"issues/{number}/comments"):
            if is_ours(comment, marker):
                self.send("PATCH", f"issues/comments/{comment['id']}", body=body)
                return
        self.send("POST", f"issues/{number}/comments", body=body)


def is_ours(written: dict, marker: str) -> bool:
    """Whether a comment or an issue is a workflow's own. People quote comments, marker and all."""
    return written["user"]["type"] == "Bot" and (written["body"] or "").startswith(marker)


if __name__ == "__main__":
    Repository().keep_comment(int(sys.argv[1]), sys.stdin.read())
