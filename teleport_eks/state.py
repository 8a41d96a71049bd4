"""The tables with Teleport's state and audit events, for several hosts that are one proxy."""

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from teleport_eks.settings import Settings

# What Teleport makes of items that expire, in both tables.
TTL: "aws.dynamodb.TableTtlArgsDict" = {"attribute_name": "Expires", "enabled": True}
# By this index Teleport finds events by their time.
EVENTS_INDEX = "timesearchV2"


@dataclass(frozen=True)
class ProxyStateArgs:
    settings: Settings


class ProxyState(pulumi.ComponentResource):
    """Owns both tables. What Teleport needs of them is here as Teleport would create it, and Teleport adopts them.

    Teleport could create them itself, but then nothing would protect them, and the host would have to be allowed to.
    It does not notice a stream with other contents, so ``NEW_IMAGE`` must stay.
    """

    state_table: pulumi.Output[str]
    state_arn: pulumi.Output[str]
    events_table: pulumi.Output[str]
    events_arn: pulumi.Output[str]

    def __init__(self, name: str, args: ProxyStateArgs, *, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("teleport-eks:index:ProxyState", name, None, opts)
        protect, key = args.settings.protect, args.settings.kms_key_arn
        # Without a key of the account's, DynamoDB encrypts with one of its own.
        encryption: aws.dynamodb.TableServerSideEncryptionArgsDict | None = (
            {"enabled": True, "kms_key_arn": key} if key else None
        )

        def table(end: str, **schema: Any) -> aws.dynamodb.Table:
            return aws.dynamodb.Table(
                f"{name}-{end}",
                billing_mode="PAY_PER_REQUEST",
                ttl=TTL,
                point_in_time_recovery={"enabled": True},
                server_side_encryption=encryption,
                deletion_protection_enabled=protect,
                tags={"Name": f"{name}-{end}"},
                opts=pulumi.ResourceOptions(parent=self, protect=protect),
                **schema,
            )

        state = table(
            "state",
            hash_key="HashKey",
            range_key="FullPath",
            attributes=[{"name": "HashKey", "type": "S"}, {"name": "FullPath", "type": "S"}],
            stream_enabled=True,
            stream_view_type="NEW_IMAGE",
        )
        events = table(
            "events",
            hash_key="SessionID",
            range_key="EventIndex",
            attributes=[
                {"name": "SessionID", "type": "S"},
                {"name": "EventIndex", "type": "N"},
                {"name": "CreatedAtDate", "type": "S"},
                {"name": "CreatedAt", "type": "N"},
            ],
            global_secondary_indexes=[
                {
                    "name": EVENTS_INDEX,
                    "hash_key": "CreatedAtDate",
                    "range_key": "CreatedAt",
                    "projection_type": "ALL",
                }
            ],
        )

        self.state_table, self.state_arn = state.name, state.arn
        self.events_table, self.events_arn = events.name, events.arn
        self.register_outputs({"stateTable": self.state_table, "eventsTable": self.events_table})
