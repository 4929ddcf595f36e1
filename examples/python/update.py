"""Changes an organization and follows its change log, over gRPC without generated code.

The service describes itself by reflection. EXAMPLE_GRPC is its host:port, ORGD_TOKEN a token,
EXAMPLE_ORGANIZATION the id of an organization, EXAMPLE_ENTRIES how many changes to show before the end;
without it there is none.
"""

import itertools
import os
import sys
import time
import uuid

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

SERVICE = "organization.v1.OrganizationService"
NAME = "By the Python example"
TIMEOUT_S = 10  # what a call may take, each try by itself
TRIES = 4
# A stream that is lost without a word is noticed by a ping that nobody answers.
KEEP_ALIVE = [("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 10_000)]
WAIT_S = 1  # where the answer does not say how long to wait


def main():
    organization = int(variable("EXAMPLE_ORGANIZATION"))
    entries = os.environ.get("EXAMPLE_ENTRIES")
    with grpc.insecure_channel(variable("EXAMPLE_GRPC"), options=KEEP_ALIVE) as channel:
        client = Client(channel, variable("ORGD_TOKEN"))
        change_name(client, organization)
        clear_subscription(client, organization)
        changes = follow(client, organization, after=0)
        for change in itertools.islice(changes, entries and int(entries)):
            fields = ", ".join(field.field for field in change.fields)
            say(f"change {change.version} by {change.subject}: {fields}")


def variable(name):
    return os.environ.get(name) or sys.exit(f"set {name}")


def say(line):
    print(line, flush=True)


def change_name(client, organization):
    old = client.call("Get", id=organization)
    # The same name again would change nothing, and the etag read before would not be stale.
    name = NAME if old.name != NAME else f"{NAME}, again"
    # With the etag the update is made only if nobody else has changed what was read.
    new = client.update("name", id=organization, name=name, etag=old.etag)
    say(f"name: {old.name} -> {new.name}")

    try:
        client.update("name", id=organization, name="Too late", etag=old.etag)
    except grpc.RpcError as error:
        if reason(error) != "ETAG_MISMATCH":
            raise
        say("stale etag refused: ETAG_MISMATCH")
    else:
        sys.exit("a stale etag was taken")


def clear_subscription(client, organization):
    # In the mask and without a value: cleared.
    new = client.update("subscription_id", id=organization)
    if new.HasField("subscription_id"):
        sys.exit("the subscription is still there")
    say("subscription cleared")


def follow(client, organization, after):
    """Yields the changes after a version, those to come too. Each stream ends some day, as when its
    instance stops, and the next one goes on where it ended."""
    tries_left = TRIES
    while True:
        try:
            stream = client.stream(
                "Watch", organization_ids=[organization], from_versions={organization: after}
            )
            for change in stream:
                tries_left = TRIES
                if not change.heartbeat:
                    after = change.version
                    yield change
        except grpc.RpcError as error:
            tries_left -= 1
            seconds = wait(error)
            if seconds is None or not tries_left:
                raise
            time.sleep(seconds)


class Client:
    def __init__(self, channel, token):
        self.channel = channel
        self.metadata = [("authorization", f"Bearer {token}")]
        self.pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))

    def update(self, field, **organization):
        return self.call(
            "Update",
            organization=organization,
            update_mask={"paths": [field]},
            # The same in every try, so that the update is made once however many arrive.
            request_id=str(uuid.uuid4()),
        )

    def call(self, name, **fields):
        """Makes a call, and makes it again where that helps. Every call here may be repeated: one
        that reads changes nothing, and an update has its request_id."""
        for tries_left in reversed(range(TRIES)):
            try:
                return self.call_once(name, fields)
            except grpc.RpcError as error:
                seconds = wait(error)
                if seconds is None or not tries_left:
                    raise
                time.sleep(seconds)

    def call_once(self, name, fields):
        return self.send(self.channel.unary_unary, name, fields, timeout=TIMEOUT_S)

    def stream(self, name, **fields):
        # Without a timeout: it has no end of its own.
        return self.send(self.channel.unary_stream, name, fields)

    def send(self, kind, name, fields, **options):
        # The pool asks the service the first time, and remembers.
        method = self.pool.FindServiceByName(SERVICE).FindMethodByName(name)
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)
        send = kind(
            f"/{SERVICE}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return send(request(**fields), metadata=self.metadata, **options)


def wait(error):
    """How many seconds to wait before the next try; None where trying again does not help."""
    told = detail(error, error_details_pb2.RetryInfo)
    if told:
        return told.retry_delay.ToTimedelta().total_seconds()
    # Nobody answered, or not in time.
    nobody = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    return WAIT_S if nobody else None


def reason(error):
    info = detail(error, error_details_pb2.ErrorInfo)
    return info.reason if info else error.code().name


def detail(error, kind):
    """The status's detail of a kind, if it has one."""
    status, found = rpc_status.from_call(error), kind()
    details = status.details if status else []
    return found if any(detail.Unpack(found) for detail in details) else None


def told(error):
    """A refusal as a person needs it: its reason, the id to ask the service's people about, its
    text."""
    metadata = [*(error.initial_metadata() or []), *(error.trailing_metadata() or [])]
    request_id = dict(metadata).get("x-request-id", "unknown")
    return f"{reason(error)} (request {request_id}): {error.details()}"


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(told(error))
    except KeyboardInterrupt:
        pass
