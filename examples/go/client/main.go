// Command client greets the app "server" through its own sidecar.
//
//	dapr run --app-id client --dapr-grpc-port 50007 -- go run ./client
package main

import (
	"context"
	"errors"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	pb "ringside.example/greeter/helloworld"
)

func main() {
	port := os.Getenv("DAPR_GRPC_PORT") // set by dapr run
	if port == "" {
		port = "50007"
	}
	conn, err := grpc.NewClient("127.0.0.1:"+port,
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatalf("no client: %v", err)
	}
	defer conn.Close()
	greeter := pb.NewGreeterClient(conn)
	request := &pb.HelloRequest{Name: "Darth Tyrannus"}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "dapr-app-id", "server")
	reply, err := greeter.SayHello(ctx, request)
	if err != nil {
		log.Fatalf("could not greet: %v", err)
	}
	log.Printf("Greeting: %s", reply.GetMessage())

	ctx = metadata.AppendToOutgoingContext(ctx, "dapr-stream", "true")
	replies, err := greeter.SayHelloStream(ctx, request)
	if err != nil {
		log.Fatalf("could not greet: %v", err)
	}
	for {
		reply, err := replies.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			log.Fatalf("could not greet: %v", err)
		}
		log.Printf("Greeting: %s", reply.GetMessage())
	}
}
