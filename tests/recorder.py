"""A mock engine for component tests: it creates nothing, and remembers what it was asked for."""

from collections.abc import Callable, Mapping
from typing import Any

import pulumi
from pulumi.runtime import mocks, rpc


def plain(value: Any) -> Any:
    """A property as a provider gets it: without the marks of secrets."""
    if rpc.is_rpc_secret(value):
        return plain(value["value"])
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


class Recorder(mocks.Mocks):
    """Answers like an engine that creates everything. ``requests``: each registration, with its options, by name."""

    def __init__(self, answers: Mapping[str, dict]) -> None:
        self.answers = answers
        self.resources: list[mocks.MockResourceArgs] = []
        self.requests: dict[str, Any] = {}

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict]:
        self.resources.append(args)
        added = {"arn": f"arn:aws:iam::111122223333:role/{args.name}", "name": args.name, "uniqueId": "AROA1"}
        return f"{args.name}-id", {"publicIp": "203.0.113.10", "allocationId": "eipalloc-1", **added, **args.inputs}

    def call(self, args: mocks.MockCallArgs) -> Any:
        if args.token == "aws:ssm/getParameter:getParameter":  # noqa: S105
            return {"id": args.args["name"], "value": "ami-1", "insecureValue": "ami-1"}
        if args.token == "aws:route53/getZone:getZone":  # noqa: S105
            return {"id": "Z1", "zoneId": "Z1", "name": args.args["name"], "arn": "arn:aws:route53:::hostedzone/Z1"}
        if args.token in self.answers:
            return {"id": "x", **args.args, **self.answers[args.token]}
        raise AssertionError(f"{args.token} is looked up, which nothing here should")

    def of(self, token: str) -> list[dict]:
        """The inputs of all resources of a type, secrets unwrapped. There must be at least one."""
        found = [plain(resource.inputs) for resource in self.resources if resource.typ == token]
        assert found, f"no {token} among {sorted({resource.typ for resource in self.resources})}"
        return found

    def only(self, token: str) -> dict:
        found = self.of(token)
        assert len(found) == 1, f"{len(found)} resources of {token}"
        return found[0]

    def has(self, token: str) -> bool:
        assert self.resources, "nothing was registered at all"
        return any(resource.typ == token for resource in self.resources)


class _Monitor(mocks.MockMonitor):
    """Keeps the options of resources, which mocks are not told."""

    mocks: Recorder  # pyright: ignore[reportIncompatibleVariableOverride]

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - gRPC's name
        self.mocks.requests[request.name] = request
        return super().RegisterResource(request)


def record(
    build: Callable[[], Any],
    answers: Mapping[str, dict] | None = None,
    project: str = "teleport-eks",
    recorder: Recorder | None = None,
) -> Recorder:
    """What ``build`` registers, after the last of it has landed. ``answers``: what more can be looked up, by token."""
    recorder = recorder or Recorder(answers or {})
    mocks.set_mocks(recorder, project, "test", preview=False, monitor=_Monitor(recorder))

    @pulumi.runtime.test
    def run() -> None:
        build()

    run()
    return recorder
