# The Greeter of Dapr's how-to.
#
#   dapr run --app-id server --app-port 50051 -- ruby server.rb
$LOAD_PATH.unshift(__dir__)
$stdout.sync = true

require 'grpc'
require 'greeter_services_pb'

class GreeterServer < Helloworld::Greeter::Service
  def say_hello(request, _call)
    puts "Received: #{request.name}"
    Helloworld::HelloReply.new(message: "Hello #{request.name}")
  end

  def say_hello_stream(request, _call)
    puts "Received: #{request.name}"
    (1..3).lazy.map { |i| Helloworld::HelloReply.new(message: "Hello #{request.name}, #{i} of 3") }
  end
end

port = ENV.fetch('APP_PORT', '50051') # set by dapr run
server = GRPC::RpcServer.new
server.add_http2_port("127.0.0.1:#{port}", :this_port_is_insecure)
server.handle(GreeterServer)
puts "server listening at #{port}"
server.run_till_terminated_or_interrupted(%w[INT TERM])
