// Greets the app "server" through its own sidecar.
//
//   make && dapr run --app-id client --dapr-grpc-port 50007 -- build/client
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>

#include "greeter.grpc.pb.h"

using helloworld::HelloReply;
using helloworld::HelloRequest;

static int failed(const grpc::Status& status) {
  std::cerr << "could not greet: " << status.error_message() << std::endl;
  return EXIT_FAILURE;
}

int main() {
  const char* given = std::getenv("DAPR_GRPC_PORT");  // set by dapr run
  const std::string address = std::string("127.0.0.1:") + (given ? given : "50007");
  auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  auto greeter = helloworld::Greeter::NewStub(channel);
  const auto deadline = std::chrono::system_clock::now() + std::chrono::seconds(10);
  HelloRequest request;
  request.set_name("Darth Plagueis");
  HelloReply reply;

  grpc::ClientContext context;
  context.set_deadline(deadline);
  context.AddMetadata("dapr-app-id", "server");
  grpc::Status status = greeter->SayHello(&context, request, &reply);
  if (!status.ok()) return failed(status);
  std::cout << "Greeting: " << reply.message() << std::endl;

  grpc::ClientContext streaming;
  streaming.set_deadline(deadline);
  streaming.AddMetadata("dapr-app-id", "server");
  streaming.AddMetadata("dapr-stream", "true");
  auto replies = greeter->SayHelloStream(&streaming, request);
  while (replies->Read(&reply)) {
    std::cout << "Greeting: " << reply.message() << std::endl;
  }
  status = replies->Finish();
  if (!status.ok()) return failed(status);
}
