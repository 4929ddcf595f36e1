"""Calls the organization service as a client of another language would: by reflection alone.

call.py list ADDR "" ""              prints the names of the services
call.py METHOD ADDR TOKEN MESSAGE    prints the answer, or the status of a refusal, as JSON;
                                     of a stream, its first message
"""

import json
import sys

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

SERVICE = "organization.v1.OrganizationService"


def main(method, addr, token, message):
    with grpc.insecure_channel(addr) as channel:
        reflection = ProtoReflectionDescriptorDatabase(channel)
        if method == "list":
            return list(reflection.get_services())
        service = DescriptorPool(reflection).FindServiceByName(SERVICE)
        return call(channel, service.FindMethodByName(method), token, message)


def call(channel, method, token, message):
    request = message_factory.GetMessageClass(method.input_type)
    response = message_factory.GetMessageClass(method.output_type)
    kind = channel.unary_stream if method.server_streaming else channel.unary_unary
    stub = kind(
        f"/{SERVICE}/{method.name}",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )
    metadata = [("authorization", f"Bearer {token}")] if token else []
    try:
        answer = stub(json_format.Parse(message, request()), metadata=metadata, timeout=10)
        if method.server_streaming:
            answer = next(answer)
        return json_format.MessageToDict(answer)
    except grpc.RpcError as error:
        info = error_details_pb2.ErrorInfo()
        for detail in rpc_status.from_call(error).details:
            if detail.Is(info.DESCRIPTOR):
                detail.Unpack(info)
        return {"code": error.code().name, "message": error.details(), "reason": info.reason}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
