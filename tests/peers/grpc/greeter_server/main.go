// Command greeter_server is the app of Dapr's how-to: the Greeter of grpc-go's examples on port
// 50051. The port can be changed so that tests may run side by side; with 0 the kernel picks one
// and the log line says which.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"strconv"

	"google.golang.org/grpc"
	greeter "google.golang.org/grpc/examples/helloworld/helloworld"
	"google.golang.org/grpc/reflection"
)

type app struct {
	greeter.UnimplementedGreeterServer
}

func (app) SayHello(_ context.Context, req *greeter.HelloRequest) (*greeter.HelloReply, error) {
	log.Printf("Received: %v", req.GetName())
	return &greeter.HelloReply{Message: "Hello " + req.GetName()}, nil
}

func main() {
	port := flag.Int("port", 50051, "port to listen on; 0 lets the kernel choose")
	flag.Parse()

	listener, err := net.Listen("tcp", ":"+strconv.Itoa(*port))
	if err != nil {
		log.Fatalf("failed to listen: %v", err)
	}
	server := grpc.NewServer()
	greeter.RegisterGreeterServer(server, app{})
	// For those who ask the service what it takes; the how-to's has none.
	reflection.Register(server)
	log.Printf("server listening at %v", listener.Addr())
	if err := server.Serve(listener); err != nil {
		log.Fatalf("failed to serve: %v", err)
	}
}
