package example;

import static java.util.concurrent.TimeUnit.SECONDS;

import example.greeter.GreeterGrpc;
import example.greeter.HelloReply;
import example.greeter.HelloRequest;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.stub.MetadataUtils;

/**
 * Greets the app "server" through its own sidecar.
 *
 * <pre>dapr run --app-id client --dapr-grpc-port 50007 -- mvn compile exec:java -Dexec.mainClass=example.Client</pre>
 */
public final class Client {
  private static final Metadata.Key<String> APP_ID =
      Metadata.Key.of("dapr-app-id", Metadata.ASCII_STRING_MARSHALLER);
  private static final Metadata.Key<String> STREAM =
      Metadata.Key.of("dapr-stream", Metadata.ASCII_STRING_MARSHALLER);

  public static void main(String[] args) throws Exception {
    String port = System.getenv().getOrDefault("DAPR_GRPC_PORT", "50007"); // set by dapr run
    ManagedChannel channel =
        Grpc.newChannelBuilder("127.0.0.1:" + port, InsecureChannelCredentials.create()).build();
    try {
      greet(channel);
    } finally {
      channel.shutdownNow().awaitTermination(5, SECONDS);
    }
  }

  private static void greet(ManagedChannel channel) {
    GreeterGrpc.GreeterBlockingStub greeter =
        GreeterGrpc.newBlockingStub(channel).withDeadlineAfter(10, SECONDS);
    HelloRequest request = HelloRequest.newBuilder().setName("Darth Malak").build();

    Metadata metadata = new Metadata();
    metadata.put(APP_ID, "server");
    HelloReply reply = with(greeter, metadata).sayHello(request);
    System.out.println("Greeting: " + reply.getMessage());

    metadata.put(STREAM, "true");
    with(greeter, metadata)
        .sayHelloStream(request)
        .forEachRemaining(each -> System.out.println("Greeting: " + each.getMessage()));
  }

  private static GreeterGrpc.GreeterBlockingStub with(
      GreeterGrpc.GreeterBlockingStub greeter, Metadata metadata) {
    return greeter.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(metadata));
  }
}
