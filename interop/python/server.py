"""The interop test service on grpcio: what `--port` says, until it is killed."""

import argparse
import time
from concurrent import futures

import grpc

import testing_pb2
import testing_pb2_grpc

ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"


def echo_metadata(context):
    for key, value in context.invocation_metadata():
        if key == ECHO_INITIAL:
            context.send_initial_metadata(((key, value),))
        elif key == ECHO_TRAILING:
            context.set_trailing_metadata(((key, value),))


def echo_status(request, context):
    """Ends the call when the request asks for a status."""
    if request.HasField("response_status"):
        status = request.response_status
        code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
        context.abort(code, status.message)


def payload(size):
    return testing_pb2.Payload(body=bytes(size))


def outputs(request):
    for parameters in request.response_parameters:
        time.sleep(parameters.interval_us / 1e6)
        yield testing_pb2.StreamingOutputCallResponse(payload=payload(parameters.size))


class TestService(testing_pb2_grpc.TestServiceServicer):
    def EmptyCall(self, request, context):
        return testing_pb2.Empty()

    def UnaryCall(self, request, context):
        echo_metadata(context)
        echo_status(request, context)
        return testing_pb2.SimpleResponse(payload=payload(request.response_size))

    def StreamingOutputCall(self, request, context):
        return outputs(request)

    def StreamingInputCall(self, requests, context):
        total = sum(len(request.payload.body) for request in requests)
        return testing_pb2.StreamingInputCallResponse(aggregated_payload_size=total)

    def FullDuplexCall(self, requests, context):
        echo_metadata(context)
        for request in requests:
            echo_status(request, context)
            yield from outputs(request)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    testing_pb2_grpc.add_TestServiceServicer_to_server(TestService(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print(f"interop server listening at {port}")
    server.wait_for_termination()


if __name__ == "__main__":
    main()
