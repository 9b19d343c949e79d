# Greets the app "server" through its own sidecar.
#
#   dapr run --app-id client --dapr-grpc-port 50007 -- ruby client.rb
$LOAD_PATH.unshift(__dir__)

require 'grpc'
require 'greeter_services_pb'

port = ENV.fetch('DAPR_GRPC_PORT', '50007') # set by dapr run
greeter = Helloworld::Greeter::Stub.new("127.0.0.1:#{port}", :this_channel_is_insecure, timeout: 10)
request = Helloworld::HelloRequest.new(name: 'Darth Bane')

metadata = { 'dapr-app-id' => 'server' }
reply = greeter.say_hello(request, metadata: metadata)
puts "Greeting: #{reply.message}"

metadata = { 'dapr-app-id' => 'server', 'dapr-stream' => 'true' }
greeter.say_hello_stream(request, metadata: metadata).each do |each|
  puts "Greeting: #{each.message}"
end
