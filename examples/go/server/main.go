// Command server is the Greeter of Dapr's how-to.
//
//	dapr run --app-id server --app-port 50051 -- go run ./server
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"

	"google.golang.org/grpc"

	pb "ringside.example/greeter/helloworld"
)

type server struct {
	pb.UnimplementedGreeterServer
}

func (server) SayHello(_ context.Context, in *pb.HelloRequest) (*pb.HelloReply, error) {
	log.Printf("Received: %s", in.GetName())
	return &pb.HelloReply{Message: "Hello " + in.GetName()}, nil
}

func (server) SayHelloStream(in *pb.HelloRequest, out pb.Greeter_SayHelloStreamServer) error {
	log.Printf("Received: %s", in.GetName())
	for i := 1; i <= 3; i++ {
		message := fmt.Sprintf("Hello %s, %d of 3", in.GetName(), i)
		if err := out.Send(&pb.HelloReply{Message: message}); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	port := os.Getenv("APP_PORT") // set by dapr run
	if port == "" {
		port = "50051"
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatalf("failed to listen: %v", err)
	}
	s := grpc.NewServer()
	pb.RegisterGreeterServer(s, server{})
	log.Printf("server listening at %v", listener.Addr())
	if err := s.Serve(listener); err != nil {
		log.Fatalf("failed to serve: %v", err)
	}
}
