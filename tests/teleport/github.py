"""GitHub as Teleport sees it: who signs in, and in which teams they are. Served as github.com and api.github.com."""

import json
import secrets
from typing import ClassVar
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.boot.rig import Handler


class GitHub(Handler):
    """One OAuth app, and people in teams. The browser's cookie says who sits before it."""

    name = "github"
    client_id = "Iv1.teleport"
    client_secret = "the first secret"  # noqa: S105  made up
    teams: ClassVar[dict[str, list[tuple[str, str]]]] = {}  # of each person: organization, slug
    _given: ClassVar[dict[str, str]] = {}  # codes and tokens -> person

    def answer(self, body: bytes) -> None:
        address = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(address.query or body.decode()).items()}
        if address.path == "/login/oauth/authorize" and query["client_id"] == self.client_id:
            person = self.headers["Cookie"].partition("login=")[2].partition(";")[0]
            back = urlencode({"code": self._give(person), "state": query["state"]})
            return self.send(302, b"", {"Location": f"{query['redirect_uri']}?{back}"})
        if address.path == "/login/oauth/access_token":
            if (query.get("client_id"), query.get("client_secret")) != (self.client_id, self.client_secret):
                return self._json({"error": "incorrect_client_credentials"})  # with the status 200, as GitHub does
            person = self._given.pop(query["code"])
            return self._json({"access_token": self._give(person), "token_type": "bearer", "scope": "read:org"})
        person = self._given.get((self.headers.get("Authorization") or "").partition(" ")[2], "")
        if address.path == "/user" and person:
            return self._json({"login": person, "id": list(self.teams).index(person) + 1})
        if address.path == "/user/teams" and person:
            return self._json(
                [{"name": slug, "slug": slug, "organization": {"login": org}} for org, slug in self.teams[person]]
            )
        return self.send(404, b"")  # /orgs/NAME/sso among others: the organization has no SSO of its own

    def _give(self, person: str) -> str:
        given = secrets.token_hex(8)
        self._given[given] = person
        return given

    def _json(self, value: object) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})
