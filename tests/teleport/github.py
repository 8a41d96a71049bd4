"""GitHub as Teleport sees it: who signs in, and in which teams they are. Served as github.com and api.github.com."""

import json
import secrets
from typing import ClassVar
from urllib.parse import urlencode

from werkzeug import Request, Response


class GitHub:
    """One OAuth app, and people in teams. The browser's cookie says who sits before it."""

    client_id = "Iv1.teleport"
    client_secret = "the first secret"  # noqa: S105  made up
    teams: ClassVar[dict[str, list[tuple[str, str]]]] = {}  # of each person: organization, slug
    _given: ClassVar[dict[str, str]] = {}  # codes and tokens -> person

    @classmethod
    def answer(cls, request: Request) -> Response:
        query = request.values
        if request.path == "/login/oauth/authorize" and query["client_id"] == cls.client_id:
            back = urlencode({"code": cls._give(request.cookies["login"]), "state": query["state"]})
            return Response(status=302, headers={"Location": f"{query['redirect_uri']}?{back}"})
        if request.path == "/login/oauth/access_token":
            if (query.get("client_id"), query.get("client_secret")) != (cls.client_id, cls.client_secret):
                return _json({"error": "incorrect_client_credentials"})  # with the status 200, as GitHub does
            person = cls._given.pop(query["code"])
            return _json({"access_token": cls._give(person), "token_type": "bearer", "scope": "read:org"})
        person = cls._given.get(request.headers.get("Authorization", "").partition(" ")[2], "")
        if request.path == "/user" and person:
            return _json({"login": person, "id": list(cls.teams).index(person) + 1})
        if request.path == "/user/teams" and person:
            teams = cls.teams[person]
            return _json([{"name": slug, "slug": slug, "organization": {"login": org}} for org, slug in teams])
        return Response(status=404)  # /orgs/NAME/sso among others: the organization has no SSO of its own

    @classmethod
    def _give(cls, person: str) -> str:
        given = secrets.token_hex(8)
        cls._given[given] = person
        return given


def _json(value: object) -> Response:
    return Response(json.dumps(value), content_type="application/json")
