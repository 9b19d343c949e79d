package example;

import example.greeter.GreeterGrpc;
import example.greeter.HelloReply;
import example.greeter.HelloRequest;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.stub.StreamObserver;

/**
 * The Greeter of Dapr's how-to.
 *
 * <pre>dapr run --app-id server --app-port 50051 -- mvn compile exec:java -Dexec.mainClass=example.Server</pre>
 */
public final class Server {
  private static final class Greeter extends GreeterGrpc.GreeterImplBase {
    @Override
    public void sayHello(HelloRequest request, StreamObserver<HelloReply> replies) {
      System.out.println("Received: " + request.getName());
      replies.onNext(reply("Hello " + request.getName()));
      replies.onCompleted();
    }

    @Override
    public void sayHelloStream(HelloRequest request, StreamObserver<HelloReply> replies) {
      System.out.println("Received: " + request.getName());
      for (int i = 1; i <= 3; i++) {
        replies.onNext(reply("Hello " + request.getName() + ", " + i + " of 3"));
      }
      replies.onCompleted();
    }

    private static HelloReply reply(String message) {
      return HelloReply.newBuilder().setMessage(message).build();
    }
  }

  public static void main(String[] args) throws Exception {
    String port = System.getenv().getOrDefault("APP_PORT", "50051"); // set by dapr run
    io.grpc.Server server =
        Grpc.newServerBuilderForPort(Integer.parseInt(port), InsecureServerCredentials.create())
            .addService(new Greeter())
            .build()
            .start();
    System.out.println("server listening at " + port);
    server.awaitTermination();
  }
}
