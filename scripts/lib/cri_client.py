"""Calls a method of the Container Runtime Interface, as a kubelet does.

Prints the answer as JSON; with ExecSync what the command printed, and ends with its exit code. Debian 12
has no client of the interface. MODULES is a directory with what protoc made of cri.proto.

Usage: cri_client.py MODULES SOCKET METHOD JSON
"""

import sys

import grpc
from google.protobuf import json_format

# As long as a kubelet waits for a runtime.
SECONDS = 120


def main():
    modules, socket, method, request = sys.argv[1:]
    sys.path.insert(0, modules)
    import cri_pb2

    channel = grpc.insecure_channel(f"unix://{socket}")
    call = channel.unary_unary(
        f"/runtime.v1.RuntimeService/{method}",
        request_serializer=getattr(cri_pb2, f"{method}Request").SerializeToString,
        response_deserializer=getattr(cri_pb2, f"{method}Response").FromString,
    )
    message = json_format.Parse(request, getattr(cri_pb2, f"{method}Request")())
    try:
        answer = call(message, timeout=SECONDS, wait_for_ready=True)
    except grpc.RpcError as error:
        sys.exit(f"{method}: {error.code().name}: {error.details()}")
    if method == "ExecSync":
        sys.stdout.buffer.write(answer.stdout)
        sys.stderr.buffer.write(answer.stderr)
        sys.exit(answer.exit_code)
    print(
        json_format.MessageToJson(
            answer, including_default_value_fields=True, preserving_proto_field_name=True
        )
    )


main()
