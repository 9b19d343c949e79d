"""One interop case on grpcio; the arguments are those of grpc's own interop clients."""

import argparse
import queue

import grpc

import testing_pb2
import testing_pb2_grpc

LARGE_REQUEST, LARGE_RESPONSE = 271828, 314159
REQUEST_SIZES = (27182, 8, 1828, 45904)
RESPONSE_SIZES = (31415, 9, 2653, 58979)
INITIAL = ("x-grpc-test-echo-initial", "test_initial_metadata_value")
TRAILING = ("x-grpc-test-echo-trailing-bin", b"\x0a\x0b\x0a\x0b\x0a\x0b")
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
PATIENCE = 20


def expect(got, want, what):
    if got != want:
        raise AssertionError(f"{what}: {got!r}, not {want!r}")


def payload(size):
    return testing_pb2.Payload(body=bytes(size))


def check_payload(got, size):
    expect(got.type, testing_pb2.COMPRESSABLE, "payload type")
    expect(got.body, bytes(size), "payload")


def output_request(request_size, *response_sizes):
    request = testing_pb2.StreamingOutputCallRequest(payload=payload(request_size))
    for size in response_sizes:
        request.response_parameters.add(size=size)
    return request


class Requests:
    """What a stream sends, one by one as the case goes on; `None` half-closes."""

    def __init__(self):
        self.waiting = queue.Queue()
        self.put = self.waiting.put

    def __iter__(self):
        return iter(self.waiting.get, None)


def expect_error(call, code, message=None):
    """`call` must fail so; unary calls raise at once, streams when they are read."""
    try:
        for _ in call():
            pass
    except grpc.RpcError as error:
        expect(error.code(), code, "status")
        if message is not None:
            expect(error.details(), message, "status message")
    else:
        raise AssertionError(f"the call did not fail with {code}")


class Cases:
    def __init__(self, channel, metadata):
        self.metadata = metadata
        self.stub = testing_pb2_grpc.TestServiceStub(channel)
        self.unimplemented = testing_pb2_grpc.UnimplementedServiceStub(channel)
        self.options = {"metadata": metadata, "timeout": PATIENCE}

    def empty_unary(self):
        reply = self.stub.EmptyCall(testing_pb2.Empty(), **self.options)
        expect(reply, testing_pb2.Empty(), "reply")

    def large_unary(self):
        request = testing_pb2.SimpleRequest(
            response_size=LARGE_RESPONSE, payload=payload(LARGE_REQUEST)
        )
        check_payload(self.stub.UnaryCall(request, **self.options).payload, LARGE_RESPONSE)

    def client_streaming(self):
        requests = (
            testing_pb2.StreamingInputCallRequest(payload=payload(size)) for size in REQUEST_SIZES
        )
        reply = self.stub.StreamingInputCall(requests, **self.options)
        expect(reply.aggregated_payload_size, sum(REQUEST_SIZES), "sum of sizes")

    def server_streaming(self):
        request = output_request(0, *RESPONSE_SIZES)
        replies = list(self.stub.StreamingOutputCall(request, **self.options))
        expect(len(replies), len(RESPONSE_SIZES), "number of replies")
        for reply, size in zip(replies, RESPONSE_SIZES):
            check_payload(reply.payload, size)

    def ping_pong(self):
        requests = Requests()
        call = self.stub.FullDuplexCall(iter(requests), **self.options)
        for request_size, response_size in zip(REQUEST_SIZES, RESPONSE_SIZES):
            requests.put(output_request(request_size, response_size))
            check_payload(next(call).payload, response_size)
        requests.put(None)
        expect(list(call), [], "further replies")
        expect(call.code(), grpc.StatusCode.OK, "status")

    def empty_stream(self):
        call = self.stub.FullDuplexCall(iter(()), **self.options)
        expect(list(call), [], "replies")
        expect(call.code(), grpc.StatusCode.OK, "status")

    def custom_metadata(self):
        options = {"metadata": (*self.metadata, INITIAL, TRAILING), "timeout": PATIENCE}
        request = testing_pb2.SimpleRequest(response_size=1, payload=payload(1))
        reply, call = self.stub.UnaryCall.with_call(request, **options)
        check_payload(reply.payload, 1)
        self.check_metadata(call)

        call = self.stub.FullDuplexCall(iter((output_request(1, 1),)), **options)
        expect(len(list(call)), 1, "number of replies")
        self.check_metadata(call)

    @staticmethod
    def check_metadata(call):
        initial = [field.value for field in call.initial_metadata() if field.key == INITIAL[0]]
        expect(initial, [INITIAL[1]], "initial metadata")
        trailing = [field.value for field in call.trailing_metadata() if field.key == TRAILING[0]]
        expect(trailing, [TRAILING[1]], "trailing metadata")

    def status_code_and_message(self):
        status = testing_pb2.EchoStatus(code=2, message="test status message")
        self.expect_echo(status)
        request = testing_pb2.StreamingOutputCallRequest(response_status=status)
        expect_error(
            lambda: self.stub.FullDuplexCall(iter((request,)), **self.options),
            grpc.StatusCode.UNKNOWN,
            status.message,
        )

    def special_status_message(self):
        self.expect_echo(testing_pb2.EchoStatus(code=2, message=SPECIAL))

    def expect_echo(self, status):
        request = testing_pb2.SimpleRequest(response_status=status)
        expect_error(
            lambda: self.stub.UnaryCall(request, **self.options),
            grpc.StatusCode.UNKNOWN,
            status.message,
        )

    def unimplemented_method(self):
        expect_error(
            lambda: self.stub.UnimplementedCall(testing_pb2.Empty(), **self.options),
            grpc.StatusCode.UNIMPLEMENTED,
        )

    def unimplemented_service(self):
        expect_error(
            lambda: self.unimplemented.UnimplementedCall(testing_pb2.Empty(), **self.options),
            grpc.StatusCode.UNIMPLEMENTED,
        )

    def cancel_after_begin(self):
        requests = Requests()
        call = self.stub.StreamingInputCall.future(iter(requests), **self.options)
        call.cancel()
        requests.put(None)
        expect(call.cancelled(), True, "cancelled")
        expect(call.code(), grpc.StatusCode.CANCELLED, "status")

    def cancel_after_first_response(self):
        requests = Requests()
        call = self.stub.FullDuplexCall(iter(requests), **self.options)
        requests.put(output_request(REQUEST_SIZES[0], RESPONSE_SIZES[0]))
        check_payload(next(call).payload, RESPONSE_SIZES[0])
        call.cancel()
        expect_error(lambda: call, grpc.StatusCode.CANCELLED)
        requests.put(None)

    def timeout_on_sleeping_server(self):
        requests = Requests()
        requests.put(output_request(27182))
        call = self.stub.FullDuplexCall(iter(requests), metadata=self.metadata, timeout=0.1)
        expect_error(lambda: call, grpc.StatusCode.DEADLINE_EXCEEDED)
        requests.put(None)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server_host", required=True)
    parser.add_argument("--server_port", required=True)
    parser.add_argument("--test_case", required=True)
    parser.add_argument("--additional_metadata", default="", help="key:value;key:value")
    asked = parser.parse_args()
    metadata = tuple(
        tuple(field.split(":", 1)) for field in asked.additional_metadata.split(";") if field
    )
    with grpc.insecure_channel(f"{asked.server_host}:{asked.server_port}") as channel:
        getattr(Cases(channel, metadata), asked.test_case)()
    print(f"{asked.test_case} passed")


if __name__ == "__main__":
    main()
