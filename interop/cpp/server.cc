// The interop test service on gRPC's C++.
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <thread>

#include "testing.grpc.pb.h"

using namespace grpc::testing;
using grpc::ServerContext;
using grpc::Status;

static const char kEchoInitial[] = "x-grpc-test-echo-initial";
static const char kEchoTrailing[] = "x-grpc-test-echo-trailing-bin";

static void EchoMetadata(ServerContext* context) {
  for (const auto& [name, value] : context->client_metadata()) {
    const std::string text(value.data(), value.size());
    if (name == kEchoInitial) context->AddInitialMetadata(kEchoInitial, text);
    if (name == kEchoTrailing) context->AddTrailingMetadata(kEchoTrailing, text);
  }
}

static Status Asked(const EchoStatus& status) {
  return Status(static_cast<grpc::StatusCode>(status.code()), status.message());
}

static void Fill(Payload* payload, int size) { payload->set_body(std::string(size, '\0')); }

// The replies that a request asks for; false once the caller is gone.
template <typename Stream>
static bool WriteOutputs(const StreamingOutputCallRequest& request, Stream* stream) {
  for (const auto& parameters : request.response_parameters()) {
    std::this_thread::sleep_for(std::chrono::microseconds(parameters.interval_us()));
    StreamingOutputCallResponse response;
    Fill(response.mutable_payload(), parameters.size());
    if (!stream->Write(response)) return false;
  }
  return true;
}

class Service final : public TestService::Service {
  Status EmptyCall(ServerContext*, const Empty*, Empty*) override { return Status::OK; }

  Status UnaryCall(ServerContext* context, const SimpleRequest* request,
                   SimpleResponse* response) override {
    EchoMetadata(context);
    if (request->has_response_status()) return Asked(request->response_status());
    Fill(response->mutable_payload(), request->response_size());
    return Status::OK;
  }

  Status StreamingOutputCall(ServerContext*, const StreamingOutputCallRequest* request,
                             grpc::ServerWriter<StreamingOutputCallResponse>* writer) override {
    WriteOutputs(*request, writer);
    return Status::OK;
  }

  Status StreamingInputCall(ServerContext*, grpc::ServerReader<StreamingInputCallRequest>* reader,
                            StreamingInputCallResponse* response) override {
    StreamingInputCallRequest request;
    size_t total = 0;
    while (reader->Read(&request)) total += request.payload().body().size();
    response->set_aggregated_payload_size(static_cast<int>(total));
    return Status::OK;
  }

  Status FullDuplexCall(
      ServerContext* context,
      grpc::ServerReaderWriter<StreamingOutputCallResponse, StreamingOutputCallRequest>* stream)
      override {
    EchoMetadata(context);
    StreamingOutputCallRequest request;
    while (stream->Read(&request)) {
      if (request.has_response_status()) return Asked(request.response_status());
      if (!WriteOutputs(request, stream)) break;
    }
    return Status::OK;
  }
};

int main(int argc, char** argv) {
  const std::string flag = "--port=";
  std::string port;
  for (int i = 1; i < argc; i++) {
    const std::string argument = argv[i];
    if (argument.rfind(flag, 0) == 0) port = argument.substr(flag.size());
  }
  Service service;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:" + port, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server) return EXIT_FAILURE;
  std::cout << "interop server listening at " << port << std::endl;
  server->Wait();
}
