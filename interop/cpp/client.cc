// One interop case on gRPC's C++; the arguments are those of grpc's own interop clients.
#include <grpcpp/grpcpp.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "testing.grpc.pb.h"

using namespace grpc::testing;
using grpc::ClientContext;
using grpc::Status;
using grpc::StatusCode;
using std::chrono::milliseconds;
using std::chrono::system_clock;

static const int kLargeRequest = 271828, kLargeResponse = 314159;
static const std::array<int, 4> kRequestSizes = {27182, 8, 1828, 45904};
static const std::array<int, 4> kResponseSizes = {31415, 9, 2653, 58979};
static const char kEchoInitial[] = "x-grpc-test-echo-initial";
static const char kEchoTrailing[] = "x-grpc-test-echo-trailing-bin";
static const std::string kInitialValue = "test_initial_metadata_value";
static const std::string kTrailingValue = "\x0a\x0b\x0a\x0b\x0a\x0b";
static const std::string kSpecial =
    "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001F608\t\n";

static void Expect(bool holds, const std::string& what) {
  if (holds) return;
  std::cerr << "failed: " << what << std::endl;
  std::exit(EXIT_FAILURE);
}

static void ExpectStatus(const Status& status, StatusCode code) {
  Expect(status.error_code() == code, "status " + std::to_string(status.error_code()) + " \"" +
                                          status.error_message() + "\", not " +
                                          std::to_string(code));
}

static void ExpectEcho(const Status& status, const std::string& message) {
  ExpectStatus(status, StatusCode::UNKNOWN);
  Expect(status.error_message() == message, "status message " + status.error_message());
}

static void Fill(Payload* payload, int size) { payload->set_body(std::string(size, '\0')); }

static void Check(const Payload& payload, int size) {
  Expect(payload.type() == COMPRESSABLE, "payload type");
  Expect(payload.body() == std::string(size, '\0'), "payload");
}

static StreamingOutputCallRequest Output(int size, const std::vector<int>& sizes) {
  StreamingOutputCallRequest request;
  Fill(request.mutable_payload(), size);
  for (int each : sizes) request.add_response_parameters()->set_size(each);
  return request;
}

template <typename Fields>
static bool Holds(const Fields& fields, const char* name, const std::string& value) {
  auto [first, last] = fields.equal_range(name);
  return first != last && std::next(first) == last &&
         std::string(first->second.data(), first->second.size()) == value;
}

static void CheckMetadata(const ClientContext& context) {
  Expect(Holds(context.GetServerInitialMetadata(), kEchoInitial, kInitialValue),
         "initial metadata");
  Expect(Holds(context.GetServerTrailingMetadata(), kEchoTrailing, kTrailingValue),
         "trailing metadata");
}

class Cases {
 public:
  Cases(std::shared_ptr<grpc::Channel> channel, std::map<std::string, std::string> metadata)
      : stub_(TestService::NewStub(channel)),
        unimplemented_(UnimplementedService::NewStub(channel)),
        metadata_(std::move(metadata)) {}

  void EmptyUnary() {
    auto context = Context();
    Empty reply;
    ExpectStatus(stub_->EmptyCall(context.get(), Empty(), &reply), StatusCode::OK);
  }

  void LargeUnary() {
    auto context = Context();
    SimpleRequest request;
    request.set_response_size(kLargeResponse);
    Fill(request.mutable_payload(), kLargeRequest);
    SimpleResponse reply;
    ExpectStatus(stub_->UnaryCall(context.get(), request, &reply), StatusCode::OK);
    Check(reply.payload(), kLargeResponse);
  }

  void ClientStreaming() {
    auto context = Context();
    StreamingInputCallResponse reply;
    auto writer = stub_->StreamingInputCall(context.get(), &reply);
    for (int size : kRequestSizes) {
      StreamingInputCallRequest request;
      Fill(request.mutable_payload(), size);
      Expect(writer->Write(request), "Write");
    }
    Expect(writer->WritesDone(), "WritesDone");
    ExpectStatus(writer->Finish(), StatusCode::OK);
    const int total = std::accumulate(kRequestSizes.begin(), kRequestSizes.end(), 0);
    Expect(reply.aggregated_payload_size() == total, "sum of sizes");
  }

  void ServerStreaming() {
    auto context = Context();
    auto request = Output(0, {kResponseSizes.begin(), kResponseSizes.end()});
    auto reader = stub_->StreamingOutputCall(context.get(), request);
    StreamingOutputCallResponse reply;
    for (int size : kResponseSizes) {
      Expect(reader->Read(&reply), "Read");
      Check(reply.payload(), size);
    }
    Expect(!reader->Read(&reply), "no further replies");
    ExpectStatus(reader->Finish(), StatusCode::OK);
  }

  void PingPong() {
    auto context = Context();
    auto stream = stub_->FullDuplexCall(context.get());
    StreamingOutputCallResponse reply;
    for (size_t i = 0; i < kRequestSizes.size(); i++) {
      Expect(stream->Write(Output(kRequestSizes[i], {kResponseSizes[i]})), "Write");
      Expect(stream->Read(&reply), "Read");
      Check(reply.payload(), kResponseSizes[i]);
    }
    Expect(stream->WritesDone(), "WritesDone");
    Expect(!stream->Read(&reply), "no further replies");
    ExpectStatus(stream->Finish(), StatusCode::OK);
  }

  void EmptyStream() {
    auto context = Context();
    auto stream = stub_->FullDuplexCall(context.get());
    StreamingOutputCallResponse reply;
    Expect(stream->WritesDone(), "WritesDone");
    Expect(!stream->Read(&reply), "no replies");
    ExpectStatus(stream->Finish(), StatusCode::OK);
  }

  void CustomMetadata() {
    auto context = Context();
    context->AddMetadata(kEchoInitial, kInitialValue);
    context->AddMetadata(kEchoTrailing, kTrailingValue);
    SimpleRequest request;
    request.set_response_size(1);
    Fill(request.mutable_payload(), 1);
    SimpleResponse reply;
    ExpectStatus(stub_->UnaryCall(context.get(), request, &reply), StatusCode::OK);
    Check(reply.payload(), 1);
    CheckMetadata(*context);

    context = Context();
    context->AddMetadata(kEchoInitial, kInitialValue);
    context->AddMetadata(kEchoTrailing, kTrailingValue);
    auto stream = stub_->FullDuplexCall(context.get());
    StreamingOutputCallResponse streamed;
    Expect(stream->Write(Output(1, {1})) && stream->WritesDone(), "Write");
    Expect(stream->Read(&streamed) && !stream->Read(&streamed), "one reply");
    ExpectStatus(stream->Finish(), StatusCode::OK);
    CheckMetadata(*context);
  }

  void StatusCodeAndMessage() {
    const std::string message = "test status message";
    UnaryEcho(message);
    auto context = Context();
    auto stream = stub_->FullDuplexCall(context.get());
    StreamingOutputCallRequest request;
    request.mutable_response_status()->set_code(StatusCode::UNKNOWN);
    request.mutable_response_status()->set_message(message);
    StreamingOutputCallResponse reply;
    stream->Write(request);
    stream->WritesDone();
    Expect(!stream->Read(&reply), "no replies");
    ExpectEcho(stream->Finish(), message);
  }

  void SpecialStatusMessage() { UnaryEcho(kSpecial); }

  void UnimplementedMethod() {
    auto context = Context();
    Empty reply;
    ExpectStatus(stub_->UnimplementedCall(context.get(), Empty(), &reply),
                 StatusCode::UNIMPLEMENTED);
  }

  void UnimplementedServiceCase() {
    auto context = Context();
    Empty reply;
    ExpectStatus(unimplemented_->UnimplementedCall(context.get(), Empty(), &reply),
                 StatusCode::UNIMPLEMENTED);
  }

  void CancelAfterBegin() {
    auto context = Context();
    StreamingInputCallResponse reply;
    auto writer = stub_->StreamingInputCall(context.get(), &reply);
    context->TryCancel();
    ExpectStatus(writer->Finish(), StatusCode::CANCELLED);
  }

  void CancelAfterFirstResponse() {
    auto context = Context();
    auto stream = stub_->FullDuplexCall(context.get());
    StreamingOutputCallResponse reply;
    Expect(stream->Write(Output(kRequestSizes[0], {kResponseSizes[0]})), "Write");
    Expect(stream->Read(&reply), "Read");
    Check(reply.payload(), kResponseSizes[0]);
    context->TryCancel();
    ExpectStatus(stream->Finish(), StatusCode::CANCELLED);
  }

  void TimeoutOnSleepingServer() {
    auto context = Context(milliseconds(100));
    auto stream = stub_->FullDuplexCall(context.get());
    stream->Write(Output(27182, {}));
    ExpectStatus(stream->Finish(), StatusCode::DEADLINE_EXCEEDED);
  }

 private:
  std::unique_ptr<ClientContext> Context(milliseconds patience = milliseconds(20000)) {
    auto context = std::make_unique<ClientContext>();
    context->set_deadline(system_clock::now() + patience);
    for (const auto& [name, value] : metadata_) context->AddMetadata(name, value);
    return context;
  }

  void UnaryEcho(const std::string& message) {
    auto context = Context();
    SimpleRequest request;
    request.mutable_response_status()->set_code(StatusCode::UNKNOWN);
    request.mutable_response_status()->set_message(message);
    SimpleResponse reply;
    ExpectEcho(stub_->UnaryCall(context.get(), request, &reply), message);
  }

  std::unique_ptr<TestService::Stub> stub_;
  std::unique_ptr<UnimplementedService::Stub> unimplemented_;
  const std::map<std::string, std::string> metadata_;
};

// "name:value;name:value"
static std::map<std::string, std::string> Fields(const std::string& text) {
  std::map<std::string, std::string> fields;
  for (size_t from = 0; from < text.size();) {
    const size_t end = std::min(text.find(';', from), text.size());
    const size_t colon = text.find(':', from);
    if (colon < end) fields[text.substr(from, colon - from)] = text.substr(colon + 1, end - colon - 1);
    from = end + 1;
  }
  return fields;
}

int main(int argc, char** argv) {
  std::map<std::string, std::string> given;
  for (int i = 1; i < argc; i++) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    if (argument.rfind("--", 0) != 0 || equals == std::string::npos) continue;
    given[argument.substr(2, equals - 2)] = argument.substr(equals + 1);
  }
  const std::map<std::string, void (Cases::*)()> by_name = {
      {"empty_unary", &Cases::EmptyUnary},
      {"large_unary", &Cases::LargeUnary},
      {"client_streaming", &Cases::ClientStreaming},
      {"server_streaming", &Cases::ServerStreaming},
      {"ping_pong", &Cases::PingPong},
      {"empty_stream", &Cases::EmptyStream},
      {"custom_metadata", &Cases::CustomMetadata},
      {"status_code_and_message", &Cases::StatusCodeAndMessage},
      {"special_status_message", &Cases::SpecialStatusMessage},
      {"unimplemented_method", &Cases::UnimplementedMethod},
      {"unimplemented_service", &Cases::UnimplementedServiceCase},
      {"cancel_after_begin", &Cases::CancelAfterBegin},
      {"cancel_after_first_response", &Cases::CancelAfterFirstResponse},
      {"timeout_on_sleeping_server", &Cases::TimeoutOnSleepingServer},
  };
  const auto found = by_name.find(given["test_case"]);
  Expect(found != by_name.end(), "no case " + given["test_case"]);
  auto channel = grpc::CreateChannel(given["server_host"] + ":" + given["server_port"],
                                     grpc::InsecureChannelCredentials());
  Cases cases(channel, Fields(given["additional_metadata"]));
  (cases.*found->second)();
  std::cout << found->first << " passed" << std::endl;
}
