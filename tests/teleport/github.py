"""GitHub as Teleport sees it, under its own names: who signs in, in which teams they are, and which job one is."""

import base64
import json
import secrets
import time
from typing import ClassVar
from urllib.parse import urlencode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from werkzeug import Request, Response

ISSUER = "https://token.actions.githubusercontent.com"


class GitHub:
    """One OAuth app, people in teams, and jobs of Actions. The browser's cookie says who sits before it."""

    client_id = "Iv1.teleport"
    client_secret = "the first secret"  # noqa: S105  made up
    teams: ClassVar[dict[str, list[tuple[str, str]]]] = {}  # of each person: organization, slug
    jobs: ClassVar[dict[str, dict[str, str]]] = {}  # of each job's request token: what GitHub says of the job
    _key = rsa.generate_private_key(65537, 2048)
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
        if request.path == "/.well-known/openid-configuration":
            algorithms = {"id_token_signing_alg_values_supported": ["RS256"]}
            return _json({"issuer": ISSUER, "jwks_uri": f"{ISSUER}/.well-known/jwks", **algorithms})
        if request.path == "/.well-known/jwks":
            public = cls._key.public_key().public_numbers()
            numbers = {"n": public.n.to_bytes(256, "big"), "e": public.e.to_bytes(3, "big")}
            key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1"}
            return _json({"keys": [key | {name: _base64url(value) for name, value in numbers.items()}]})
        token = request.headers.get("Authorization", "").partition(" ")[2]
        if token in cls.jobs:
            return _json({"value": cls._id_token({**cls.jobs[token], "aud": query["audience"]})})
        person = cls._given.get(token, "")
        if request.path == "/user" and person:
            return _json({"login": person, "id": list(cls.teams).index(person) + 1})
        if request.path == "/user/teams" and person:
            teams = cls.teams[person]
            return _json([{"name": slug, "slug": slug, "organization": {"login": org}} for org, slug in teams])
        return Response(status=404)  # /orgs/NAME/sso among others: the organization has no SSO of its own

    @classmethod
    def _id_token(cls, claims: dict[str, str]) -> str:
        now = int(time.time())
        times = {"iat": now, "nbf": now - 600, "exp": now + 300}
        parts = {"alg": "RS256", "typ": "JWT", "kid": "1"}, {"iss": ISSUER, "sub": "repo:any", **times, **claims}
        text = ".".join(_base64url(json.dumps(part).encode()) for part in parts)
        return f"{text}.{_base64url(cls._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    @classmethod
    def _give(cls, person: str) -> str:
        given = secrets.token_hex(8)
        cls._given[given] = person
        return given


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(value: object) -> Response:
    return Response(json.dumps(value), content_type="application/json")
