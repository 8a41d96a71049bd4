"""The tables that several hosts share, as the stack declares them."""

from typing import Any

from sandbox.providers.aws import TABLE, derive_table, send
from teleport_eks.state import ProxyState, ProxyStateArgs
from tests.examples import settings
from tests.recorder import plain, record


def create_tables(dynamodb: Any, state: str, events: str) -> None:
    declared = record(lambda: ProxyState("x", ProxyStateArgs(settings(protect="false")))).resources
    inputs = {resource.name: plain(resource.inputs) for resource in declared}
    for name, props in (state, inputs["x-state"]), (events, inputs["x-events"]):
        props |= derive_table(props)
        dynamodb.create_table(TableName=name, **send(props, TABLE))
        dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=props["expiry"])
