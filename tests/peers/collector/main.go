// A real OpenTelemetry collector's OTLP receiver, over gRPC and HTTP, that prints what it gets: for each
// request a line with its x-key and its traces in OTLP's JSON.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"sync"

	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
)

func main() {
	grpcAddress := flag.String("grpc", "", "address of OTLP over gRPC")
	httpAddress := flag.String("http", "", "address of OTLP over HTTP")
	certificate := flag.String("cert", "", "PEM file: TLS on both")
	key := flag.String("key", "", "its key")
	clients := flag.String("clients", "", "PEM file: who vouches for clients, which then need a certificate")
	flag.Parse()

	var lines sync.Mutex
	var marshaler ptrace.JSONMarshaler
	print, err := consumer.NewTraces(func(ctx context.Context, traces ptrace.Traces) error {
		key := client.FromContext(ctx).Metadata.Get("x-key")
		line, err := marshaler.MarshalTraces(traces)
		if err != nil {
			return err
		}
		lines.Lock()
		defer lines.Unlock()
		_, err = fmt.Fprintf(os.Stdout, `{"key":%q,"traces":%s}`+"\n", strings.Join(key, ","), line)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}

	endpoint := func(address string) map[string]any {
		return map[string]any{"endpoint": address, "include_metadata": true}
	}
	grpc, http := endpoint(*grpcAddress), endpoint(*httpAddress)
	if *certificate != "" {
		tls := map[string]any{"cert_file": *certificate, "key_file": *key}
		if *clients != "" {
			tls["client_ca_file"] = *clients
		}
		grpc["tls"], http["tls"] = tls, tls
	}
	protocols := map[string]any{"protocols": map[string]any{"grpc": grpc, "http": http}}
	factory := otlpreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	if err := confmap.NewFromStringMap(protocols).Unmarshal(config); err != nil {
		log.Fatal(err)
	}
	settings := receivertest.NewNopSettings(factory.Type())
	receiver, err := factory.CreateTraces(context.Background(), settings, config, print)
	if err != nil {
		log.Fatal(err)
	}
	if err := receiver.Start(context.Background(), componenttest.NewNopHost()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(`{"listening":true}`)
	select {}
}
