// Command greeter_client is the caller of Dapr's how-to: it knows one address, its own sidecar's
// gRPC port, and says in metadata which app it wants. Flags change both for tests that run side by
// side; without flags it behaves as the how-to says.
package main

import (
	"context"
	"flag"
	"log"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	greeter "google.golang.org/grpc/examples/helloworld/helloworld"
	"google.golang.org/grpc/metadata"
)

func main() {
	address := flag.String("address", "localhost:50007", "gRPC port of the sidecar")
	app := flag.String("app", "server", "value of dapr-app-id; empty sends none")
	name := flag.String("name", "Darth Tyrannus", "whom to greet")
	timeout := flag.Duration("timeout", 2*time.Second, "deadline of the call")
	flag.Parse()

	// The how-to dials blocking, so the deadline starts only once the sidecar is there.
	dialing, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	conn, err := grpc.DialContext(dialing, *address, //nolint:staticcheck // as the how-to does
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithBlock())
	if err != nil {
		log.Fatalf("did not connect: %v", err)
	}
	defer conn.Close()

	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	if *app != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "dapr-app-id", *app)
	}
	reply, err := greeter.NewGreeterClient(conn).SayHello(ctx, &greeter.HelloRequest{Name: *name})
	if err != nil {
		log.Fatalf("could not greet: %v", err)
	}
	log.Printf("Greeting: %s", reply.GetMessage())
}
