# The interop server of the gem grpc, as it is.
require_relative 'grpc_program'

load published('server.rb')
