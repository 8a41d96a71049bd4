"""What all providers have in common: from the engine's messages to the calls of one resource type, and back."""

import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime import rpc
from pulumi.runtime.proto import plugin_pb2, provider_pb2_grpc
from pulumi.runtime.proto import provider_pb2 as pb

Props = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One resource type. ``create`` returns the id; ``read`` what is there now, or None if it is gone.

    ``computed``: what only ``read`` knows, not the program. ``named``: without a name it gets its own with a random
    end. ``update`` gets the id, the old properties and the new; without it, and for ``replaces``, there is a new one.
    """

    create: Callable[[Props], str]
    read: Callable[[str, Props], Props | None]
    delete: Callable[[str, Props], Any] = lambda _id, _props: None
    update: Callable[[str, Props, Props], Any] | None = None
    replaces: tuple[str, ...] = ()
    replaces_if: Callable[[Props], tuple[str, ...]] = lambda _new: ()
    computed: tuple[str, ...] = ()
    secret: tuple[str, ...] = ()
    named: bool = False


@dataclass
class Provider:
    """The types and functions of a provider; ``find`` is for types that are not in a table."""

    package: str
    kinds: dict[str, Kind] = field(default_factory=dict)
    functions: dict[str, Callable[[Props], Props]] = field(default_factory=dict)
    find: Callable[[str], Kind | None] = lambda _token: None
    configure: Callable[[Props], Any] = lambda _config: None
    errors: tuple[type[Exception], ...] = ()
    is_gone: Callable[[Exception], bool] = lambda _error: False

    def kind(self, token: str) -> Kind:
        found = self.kinds.get(token) or self.find(token)
        if not found:
            raise LookupError(f"the sandbox's provider does not know {token}; it knows {', '.join(sorted(self.kinds))}")
        return found


def decode(struct: struct_pb2.Struct) -> Props:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return plain(value["value"]) if rpc.is_rpc_secret(value) else {k: plain(v) for k, v in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    return {k: v for k, v in plain(json_format.MessageToDict(struct)).items() if v is not None}


def encode(props: Props, secret: tuple[str, ...] = ()) -> struct_pb2.Struct:
    def mark(value: Any) -> Any:
        return {rpc._special_sig_key: rpc._special_secret_sig, "value": value}  # the SDK has no public name for them

    props = {key: mark(value) if key in secret else value for key, value in props.items() if value is not None}
    return json_format.ParseDict(props, struct_pb2.Struct())


def same(one: Any, other: Any) -> bool:
    """Whether two values mean the same: the spaces and the order of keys in JSON do not count."""
    if one == other:
        return True
    try:
        return isinstance(one, str) and isinstance(other, str) and json.loads(one) == json.loads(other)
    except ValueError:
        return False


def differences(old: Props, new: Props, prefix: str = "") -> Iterator[str]:
    """The paths of what is not the same: maps are looked into, all else is one value."""
    for key in sorted({*old, *new}):
        if same(old.get(key), new.get(key)):
            continue
        path = prefix + (f"[{json.dumps(key)}]" if prefix and not key.isidentifier() else f".{key}" if prefix else key)
        if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            yield from differences(old[key], new[key], path)
        else:
            yield path


class Servicer(provider_pb2_grpc.ResourceProviderServicer):
    """The engine's side of a provider."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider

    def GetPluginInfo(self, _request: Any, _context: Any) -> Any:
        # The engine warns of a plugin that is older than the program's package.
        return plugin_pb2.PluginInfo(version=importlib.metadata.version(self.provider.package))

    def Cancel(self, _request: Any, _context: Any) -> Any:
        return empty_pb2.Empty()

    def CheckConfig(self, request: Any, _context: Any) -> Any:
        return pb.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, _context: Any) -> Any:
        return _diff_response(list(differences(decode(request.old_inputs), decode(request.news))), ())

    def Configure(self, request: Any, _context: Any) -> Any:
        self.provider.configure(decode(request.args))
        return pb.ConfigureResponse(supportsPreview=True)

    def Check(self, request: Any, _context: Any) -> Any:
        kind, old, new = self.provider.kind(request.type), decode(request.olds), decode(request.news)
        if kind.named and "name" not in new:
            end = hashlib.sha256(request.randomSeed).hexdigest()[:7]
            new["name"] = old.get("name") or f"{request.name}-{end}"
        return pb.CheckResponse(inputs=encode(new))

    def Diff(self, request: Any, _context: Any) -> Any:
        kind, new = self.provider.kind(request.type), decode(request.news)
        changed = list(differences(decode(request.old_inputs), new))
        replaces = tuple(sorted({*changed} if not kind.update else {*kind.replaces, *kind.replaces_if(new)}))
        return _diff_response(changed, replaces)

    def Create(self, request: Any, _context: Any) -> Any:
        kind, props = self.provider.kind(request.type), decode(request.properties)
        if request.preview:
            return pb.CreateResponse(properties=encode({**props, **dict.fromkeys(kind.computed, rpc.UNKNOWN)}))
        created = kind.create(props)
        return pb.CreateResponse(id=created, properties=self._state(kind, created, props))

    def Read(self, request: Any, _context: Any) -> Any:
        kind, inputs = self.provider.kind(request.type), decode(request.inputs)
        known = {**decode(request.properties), **inputs}
        found = self._read(kind, request.id, known)
        if found is None:
            return pb.ReadResponse()
        if inputs:
            inputs = {k: found[k] if k in found and not same(v, found[k]) else v for k, v in inputs.items()}
        else:  # an import
            inputs = {k: v for k, v in found.items() if k not in kind.computed and v not in (None, "", {}, [])}
        state = encode({**known, **found, **inputs}, kind.secret)
        return pb.ReadResponse(id=request.id, properties=state, inputs=encode(inputs))

    def Update(self, request: Any, _context: Any) -> Any:
        kind, old, new = self.provider.kind(request.type), decode(request.olds), decode(request.news)
        was = decode(request.old_inputs)
        props = {**{k: v for k, v in old.items() if k not in was}, **new}
        if request.preview:
            return pb.UpdateResponse(properties=encode(props, kind.secret))
        assert kind.update  # noqa: S101 - else `Diff` has said that it is replaced
        kind.update(request.id, old, new)
        state = self._state(kind, request.id, props)
        left = [k for k, v in decode(state).items() if k in new and k in was and not same(v, new[k])]
        if left:
            raise NotImplementedError(f"the sandbox's provider cannot change {', '.join(left)} in place")
        return pb.UpdateResponse(properties=state)

    def Delete(self, request: Any, _context: Any) -> Any:
        try:
            self.provider.kind(request.type).delete(request.id, decode(request.properties))
        except self.provider.errors as error:
            if not self.provider.is_gone(error):
                raise
        return empty_pb2.Empty()

    def Invoke(self, request: Any, _context: Any) -> Any:
        if request.tok not in self.provider.functions:
            known = ", ".join(sorted(self.provider.functions)) or "none"
            raise LookupError(f"the sandbox's provider does not know the function {request.tok}; it knows {known}")
        args = decode(request.args)
        return pb.InvokeResponse(**{"return": encode({**args, **self.provider.functions[request.tok](args)})})

    def _read(self, kind: Kind, resource_id: str, props: Props) -> Props | None:
        try:
            return kind.read(resource_id, props)
        except self.provider.errors as error:
            if self.provider.is_gone(error):
                return None
            raise

    def _state(self, kind: Kind, resource_id: str, props: Props) -> struct_pb2.Struct:
        found = self._read(kind, resource_id, props)
        if found is None:
            raise RuntimeError(f"{resource_id} is not there, just after it was made")
        kept = {k: v for k, v in found.items() if k not in props or not same(v, props[k])}
        return encode({**props, **kept}, kind.secret)


def _diff_response(changed: list[str], replaces: tuple[str, ...]) -> Any:
    """``replaces``: top-level names, or paths."""

    def is_replacing(path: str) -> bool:
        return any(path == key or path.startswith((f"{key}.", f"{key}[")) for key in replaces)

    update, replace = pb.PropertyDiff.UPDATE, pb.PropertyDiff.UPDATE_REPLACE
    return pb.DiffResponse(
        changes=pb.DiffResponse.DIFF_SOME if changed else pb.DiffResponse.DIFF_NONE,
        diffs=sorted({path.partition(".")[0].partition("[")[0] for path in changed}),
        replaces=[path for path in changed if is_replacing(path)],
        detailedDiff={p: pb.PropertyDiff(kind=replace if is_replacing(p) else update, inputDiff=True) for p in changed},
        hasDetailedDiff=True,
    )


def serve(server: grpc.Server, provider: Provider) -> None:
    servicer = Servicer(provider)

    def answer(method: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return method(request, context)
            except Exception as error:
                if not isinstance(error, (LookupError, NotImplementedError, RuntimeError, *provider.errors)):
                    sys.excepthook(type(error), error, error.__traceback__)
                context.abort(grpc.StatusCode.UNKNOWN, f"{error}" or type(error).__name__)

        return call

    for name in [name for name in vars(Servicer) if name[0].isupper()]:
        setattr(servicer, name, answer(getattr(servicer, name)))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
