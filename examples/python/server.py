"""The Greeter of Dapr's how-to.

dapr run --app-id server --app-port 50051 -- python server.py
"""

import os
from concurrent import futures

import grpc

import greeter_pb2
import greeter_pb2_grpc


class Greeter(greeter_pb2_grpc.GreeterServicer):
    def SayHello(self, request, context):
        print(f"Received: {request.name}", flush=True)
        return greeter_pb2.HelloReply(message=f"Hello {request.name}")

    def SayHelloStream(self, request, context):
        print(f"Received: {request.name}", flush=True)
        for i in range(1, 4):
            yield greeter_pb2.HelloReply(message=f"Hello {request.name}, {i} of 3")


def main():
    port = os.environ.get("APP_PORT", "50051")  # set by dapr run
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=10))
    greeter_pb2_grpc.add_GreeterServicer_to_server(Greeter(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print(f"server listening at {port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
