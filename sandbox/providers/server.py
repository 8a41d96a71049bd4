"""What the providers have in common: from the engine's messages to the calls of one resource type, and back."""

import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime import rpc
from pulumi.runtime.proto import plugin_pb2, provider_pb2_grpc
from pulumi.runtime.proto import provider_pb2 as pb

Props = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One resource type. ``create`` returns the id; ``read`` what is there now, or None if it is gone.

    ``update`` gets the id, the old properties and the new; without it, and for the paths in ``replaces``, there is a
    new resource. ``computed``: what the program does not say; of it, ``renewed`` is new after each update. ``named``:
    this property, without which it gets a name with a random end.
    """

    create: Callable[[Props], str]
    read: Callable[[str, Props], Props | None]
    delete: Callable[[str, Props], Any] = lambda _id, _props: None
    update: Callable[[str, Props, Props], Any] | None = None
    replaces: tuple[str, ...] = ()
    replaces_if: Callable[[Props], tuple[str, ...]] = lambda _new: ()
    computed: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()
    secret: tuple[str, ...] = ()
    named: str = ""


def decode(struct: struct_pb2.Struct) -> Props:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            is_secret, set_ = rpc.is_rpc_secret(value), {k: v for k, v in value.items() if v is not None}
            return plain(value["value"]) if is_secret else {k: plain(v) for k, v in set_.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    return plain(json_format.MessageToDict(struct))


def encode(props: Props, secret: tuple[str, ...] = ()) -> struct_pb2.Struct:
    mark = {rpc._special_sig_key: rpc._special_secret_sig}  # the SDK has no public name for them
    marked = {k: {**mark, "value": v} if k in secret else v for k, v in props.items() if v is not None}
    return json_format.ParseDict(marked, struct_pb2.Struct())


def same(one: Any, other: Any) -> bool:
    """Whether two values mean the same: the spaces and the order of keys in JSON do not count."""
    try:
        return one == other or bool(one and other and json.loads(one) == json.loads(other))
    except (ValueError, TypeError):
        return False


def differences(old: Props, new: Props, prefix: str = "") -> Iterator[str]:
    """The paths of what is not the same: maps are looked into, all else is one value."""
    for key in sorted({*old, *new}):
        if not same(old.get(key), new.get(key)):
            path = f"{prefix}.{key}" if prefix and key.isidentifier() else f'{prefix}["{key}"]' if prefix else key
            if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
                yield from differences(old[key], new[key], path)
            else:
                yield path


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """The engine's side of a provider. What it does not know is an error that names it."""

    package: ClassVar[str]
    kinds: Mapping[str, Kind] = {}
    functions: Mapping[str, Callable[[Props], Props]] = {}
    errors: tuple[type[Exception], ...] = ()

    def configure(self, config: Props) -> None:
        """Takes the provider's own settings."""

    def is_gone(self, _error: Exception) -> bool:
        return False

    def kind(self, token: str) -> Kind:
        return _known(token, self.kinds)

    def GetPluginInfo(self, _request: Any, _context: Any) -> Any:
        # The engine warns of a plugin that is older than the program's package.
        return plugin_pb2.PluginInfo(version=importlib.metadata.version(self.package))

    def Cancel(self, _request: Any, _context: Any) -> Any:
        return empty_pb2.Empty()

    def CheckConfig(self, request: Any, _context: Any) -> Any:
        return pb.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, _context: Any) -> Any:
        return _diff(list(differences(decode(request.old_inputs), decode(request.news))), ())

    def Configure(self, request: Any, _context: Any) -> Any:
        self.configure(decode(request.args))
        return pb.ConfigureResponse(supportsPreview=True)

    def Check(self, request: Any, _context: Any) -> Any:
        old, new = decode(request.olds), decode(request.news)
        if (name := self.kind(request.type).named) and name not in new:
            new[name] = old.get(name) or f"{request.name}-{hashlib.sha256(request.randomSeed).hexdigest()[:7]}"
        return pb.CheckResponse(inputs=encode(new))

    def Diff(self, request: Any, _context: Any) -> Any:
        kind, new = self.kind(request.type), decode(request.news)
        changed = list(differences(decode(request.old_inputs), new))
        return _diff(changed, (*kind.replaces, *kind.replaces_if(new)) if kind.update else tuple(changed))

    def Create(self, request: Any, _context: Any) -> Any:
        kind, props = self.kind(request.type), decode(request.properties)
        if request.preview:
            return pb.CreateResponse(properties=encode({**props, **dict.fromkeys(kind.computed, rpc.UNKNOWN)}))
        made = kind.create(props)
        return pb.CreateResponse(id=made, properties=encode(self._state(kind, made, props), kind.secret))

    def Read(self, request: Any, _context: Any) -> Any:
        kind, inputs = self.kind(request.type), decode(request.inputs)
        known = {**decode(request.properties), **inputs}
        found = self._read(kind, request.id, known)
        if found is None:
            return pb.ReadResponse()
        if inputs:
            inputs = {k: v if same(v, found.get(k, v)) else found[k] for k, v in inputs.items()}
        else:  # an import
            inputs = {k: v for k, v in found.items() if k not in kind.computed and v}
        state = encode({**known, **found, **inputs}, kind.secret)
        return pb.ReadResponse(id=request.id, properties=state, inputs=encode(inputs))

    def Update(self, request: Any, _context: Any) -> Any:
        kind, old, new = self.kind(request.type), decode(request.olds), decode(request.news)
        was = decode(request.old_inputs)
        props = {**{k: v for k, v in old.items() if k not in was}, **new}
        if request.preview:
            props |= dict.fromkeys(kind.renewed, rpc.UNKNOWN)
        elif kind.update:
            kind.update(request.id, old, new)
            props = self._state(kind, request.id, props | new)
            if left := [key for key in new if key in was and not same(props[key], new[key])]:
                raise LookupError(f"the sandbox's provider cannot change {', '.join(left)} of {request.type} in place")
        return pb.UpdateResponse(properties=encode(props, kind.secret))

    def Delete(self, request: Any, _context: Any) -> Any:
        try:
            self.kind(request.type).delete(request.id, decode(request.properties))
        except self.errors as error:
            if not self.is_gone(error):
                raise
        return empty_pb2.Empty()

    def Invoke(self, request: Any, _context: Any) -> Any:
        args = decode(request.args)
        answer: Any = {"return": encode({"id": request.tok, **args, **_known(request.tok, self.functions)(args)})}
        return pb.InvokeResponse(**answer)

    def _read(self, kind: Kind, resource_id: str, props: Props) -> Props | None:
        try:
            return kind.read(resource_id, props)
        except self.errors as error:
            if self.is_gone(error):
                return None
            raise

    def _state(self, kind: Kind, resource_id: str, props: Props) -> Props:
        found = self._read(kind, resource_id, props)
        if found is None:
            raise LookupError(f"{resource_id} is not there, just after it was made")
        return {**props, **{k: v for k, v in found.items() if not same(v, props.get(k))}}


def _known(token: str, table: Mapping[str, Any]) -> Any:
    if token not in table:
        raise LookupError(f"the sandbox's provider does not know {token}; it knows {', '.join(sorted(table))}")
    return table[token]


def _diff(changed: list[str], replaces: tuple[str, ...]) -> Any:
    replacing = {p for p in changed if any(p == key or p.startswith((f"{key}.", f"{key}[")) for key in replaces)}
    kinds = {p: pb.PropertyDiff.UPDATE_REPLACE if p in replacing else pb.PropertyDiff.UPDATE for p in changed}
    return pb.DiffResponse(
        changes=pb.DiffResponse.DIFF_SOME if changed else pb.DiffResponse.DIFF_NONE,
        diffs=changed,
        replaces=sorted(replacing),
        detailedDiff={path: pb.PropertyDiff(kind=kind, inputDiff=True) for path, kind in kinds.items()},
        hasDetailedDiff=True,
    )


def serve(server: grpc.Server, provider: Provider) -> None:
    def answer(method: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return method(request, context)
            except Exception as error:
                if not isinstance(error, (LookupError, RuntimeError, *provider.errors)) or isinstance(error, KeyError):
                    sys.excepthook(type(error), error, error.__traceback__)
                context.abort(grpc.StatusCode.UNKNOWN, str(error))

        return call

    for name in [name for name in vars(Provider) if name[0].isupper()]:
        setattr(provider, name, answer(getattr(provider, name)))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
