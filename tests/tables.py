"""The tables that several hosts share, as the stack declares them."""

from typing import Any

from sandbox.providers.aws import TABLE, derive_table, send
from teleport_eks.state import ProxyState, ProxyStateArgs
from tests.examples import settings
from tests.recorder import record


def create_tables(dynamodb: Any, state: str, events: str) -> None:
    declared = record(lambda: ProxyState("x", ProxyStateArgs(settings(protect="false")))).of("aws:dynamodb/table:Table")
    for props, name in zip(declared, (state, events), strict=True):
        props |= derive_table(props)
        dynamodb.create_table(TableName=name, **send(props, TABLE))
        dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=props["expiry"])
