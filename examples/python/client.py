"""Greets the app "server" through its own sidecar.

dapr run --app-id client --dapr-grpc-port 50007 -- python client.py
"""

import os

import grpc

import greeter_pb2
import greeter_pb2_grpc


def main():
    port = os.environ.get("DAPR_GRPC_PORT", "50007")  # set by dapr run
    request = greeter_pb2.HelloRequest(name="Darth Revan")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        greeter = greeter_pb2_grpc.GreeterStub(channel)

        metadata = (("dapr-app-id", "server"),)
        reply = greeter.SayHello(request, metadata=metadata, timeout=10)
        print(f"Greeting: {reply.message}")

        metadata = (("dapr-app-id", "server"), ("dapr-stream", "true"))
        for reply in greeter.SayHelloStream(request, metadata=metadata, timeout=10):
            print(f"Greeting: {reply.message}")


if __name__ == "__main__":
    main()
