# The interop client of the gem grpc, with what it lacks: `--additional_metadata` of the other
# languages' clients, and the case special_status_message.
require_relative 'grpc_program'

require published('client.rb')

SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n".freeze

FIELDS = {} # what --additional_metadata says

# Sends FIELDS with every call; the library's own interceptors miss a duplex call's operation.
module AdditionalMetadata
  %i[request_response client_streamer server_streamer bidi_streamer].each do |kind|
    define_method(kind) do |*arguments, metadata: {}, **options|
      super(*arguments, metadata: FIELDS.merge(metadata), **options)
    end
  end
end
GRPC::ClientStub.prepend(AdditionalMetadata)

class NamedTests
  def special_status_message
    status = EchoStatus.new(code: GRPC::Core::StatusCodes::UNKNOWN, message: SPECIAL)
    @stub.unary_call(SimpleRequest.new(response_status: status))
    raise AssertionError, 'the call did not fail'
  rescue GRPC::Unknown => e
    message = e.details.dup.force_encoding(Encoding::UTF_8)
    assert("special_status_message: #{message.inspect}") { message == SPECIAL }
  end
end

ARGV.reject! do |argument|
  given = argument[/\A--additional_metadata=(.*)/, 1] or next
  FIELDS.update(given.split(';').to_h { |field| field.split(':', 2) })
end
main
