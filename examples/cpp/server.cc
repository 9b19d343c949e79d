// The Greeter of Dapr's how-to.
//
//   make && dapr run --app-id server --app-port 50051 -- build/server
#include <grpcpp/grpcpp.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>

#include "greeter.grpc.pb.h"

using helloworld::HelloReply;
using helloworld::HelloRequest;

class Greeter final : public helloworld::Greeter::Service {
  grpc::Status SayHello(grpc::ServerContext*, const HelloRequest* request,
                        HelloReply* reply) override {
    std::cout << "Received: " << request->name() << std::endl;
    reply->set_message("Hello " + request->name());
    return grpc::Status::OK;
  }

  grpc::Status SayHelloStream(grpc::ServerContext*, const HelloRequest* request,
                              grpc::ServerWriter<HelloReply>* replies) override {
    std::cout << "Received: " << request->name() << std::endl;
    for (int i = 1; i <= 3; i++) {
      HelloReply reply;
      reply.set_message("Hello " + request->name() + ", " + std::to_string(i) + " of 3");
      if (!replies->Write(reply)) break;
    }
    return grpc::Status::OK;
  }
};

int main() {
  const char* given = std::getenv("APP_PORT");  // set by dapr run
  const std::string address = std::string("127.0.0.1:") + (given ? given : "50051");
  Greeter greeter;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials());
  builder.RegisterService(&greeter);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server) return EXIT_FAILURE;
  std::cout << "server listening at " << address << std::endl;
  server->Wait();
}
