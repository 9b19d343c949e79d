package main

import (
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

type outcome struct {
	Event     string              `json:"event"`
	Header    map[string][]string `json:"header"`
	Trailer   map[string][]string `json:"trailer"`
	Code      int                 `json:"code"`
	CodeName  string              `json:"code_name"`
	Message   string              `json:"message"`
	Details   []string            `json:"details"`
	Messages  int                 `json:"messages"`
	Bytes     int                 `json:"bytes"`
	Mismatch  bool                `json:"mismatch"`
	HeaderMs  int64               `json:"header_ms"`
	ElapsedMs int64               `json:"elapsed_ms"`
}

type order struct {
	method               string
	count, size          int
	deadline             time.Duration
	cancelAfter          int
	waitHeader, pingPong bool
	md                   metadata.MD
}

func runCall(args []string) {
	flags := flag.NewFlagSet("call", flag.ExitOnError)
	address := flags.String("address", "", "host:port or unix:PATH to call")
	authority := flags.String("authority", "", "replaces :authority")
	userAgent := flags.String("user-agent", "", "comes first in user-agent")
	subtype := flags.String("subtype", "", "content-type becomes application/grpc+SUBTYPE")
	zip := flags.Bool("gzip", false, "compress the messages")
	ready := flags.Bool("wait-for-ready", false, "wait for the connection instead of failing")
	times := flags.Int("times", 1, "so many calls, one after the other, on one connection")
	var o order
	var md fields
	flags.StringVar(&o.method, "method", "/probe.Probe/Echo", "full method")
	flags.IntVar(&o.count, "messages", 1, "how many messages to send")
	flags.IntVar(&o.size, "size", 5, "bytes of each")
	flags.DurationVar(&o.deadline, "deadline", 0, "deadline of a call; 0 is none")
	flags.IntVar(&o.cancelAfter, "cancel-after", -1, "cancel once so many messages came back")
	flags.BoolVar(&o.waitHeader, "wait-header", false, "send nothing before the initial metadata came")
	flags.BoolVar(&o.pingPong, "ping-pong", false, "wait for an answer before each further message")
	flags.Var(&md, "H", "metadata name:value (repeatable)")
	identity := tlsFlags(flags)
	flags.Parse(args)
	if *address == "" {
		fail("call needs -address")
	}
	o.md = md.md

	// grpc-go names the content subtype after the codec; the empty name keeps "application/grpc".
	options := []grpc.DialOption{grpc.WithDefaultCallOptions(
		grpc.ForceCodec(raw{*subtype}), grpc.WaitForReady(*ready),
		grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30))}
	if *zip {
		options = append(options, grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)))
	}
	if *authority != "" {
		options = append(options, grpc.WithAuthority(*authority))
	}
	if *userAgent != "" {
		options = append(options, grpc.WithUserAgent(*userAgent))
	}
	transport := insecure.NewCredentials()
	if config := identity.client(); config != nil {
		transport = credentials.NewTLS(config)
	}
	options = append(options, grpc.WithTransportCredentials(transport))
	target := "passthrough:///" + *address
	if strings.HasPrefix(*address, "unix:") {
		target = *address
	}
	conn, err := grpc.NewClient(target, options...)
	must(err)
	defer conn.Close()
	for range *times {
		say(o.run(conn))
	}
}

func (o *order) run(conn *grpc.ClientConn) outcome {
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(context.Background(), o.md))
	defer cancel()
	if o.deadline > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, o.deadline)
		defer stop()
	}
	start := time.Now()
	out := outcome{Event: "outcome", HeaderMs: -1}
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := conn.NewStream(ctx, desc, o.method)
	if err == nil {
		err = o.exchange(stream, cancel, start, &out)
		if header, headerErr := stream.Header(); headerErr == nil {
			out.Header = readable(header)
		}
		out.Trailer = readable(stream.Trailer())
	}
	out.ElapsedMs = time.Since(start).Milliseconds()
	answer := status.Convert(err)
	out.Code, out.CodeName, out.Message = int(answer.Code()), answer.Code().String(), answer.Message()
	for _, detail := range answer.Proto().GetDetails() {
		bytes, _ := proto.Marshal(detail)
		out.Details = append(out.Details, base64.RawStdEncoding.EncodeToString(bytes))
	}
	return out
}

// pattern makes message number n tell itself from its neighbours.
func (o *order) pattern(n int) []byte {
	message := make([]byte, o.size)
	for i := range message {
		message[i] = byte(n*31 + i)
	}
	return message
}

func (o *order) exchange(
	stream grpc.ClientStream, cancel context.CancelFunc, start time.Time, out *outcome,
) error {
	if o.waitHeader {
		if _, err := stream.Header(); err != nil {
			return err
		}
		out.HeaderMs = time.Since(start).Milliseconds()
	}
	// A sender gets only io.EOF when the call is over; the receiver below learns the status.
	next := make(chan struct{}, o.count+1)
	go func() {
		for n := range o.count {
			if o.pingPong && n > 0 {
				if _, open := <-next; !open {
					return
				}
			}
			message := o.pattern(n)
			if stream.SendMsg(&message) != nil {
				return
			}
		}
		stream.CloseSend()
	}()
	defer close(next)
	for {
		if o.cancelAfter == out.Messages {
			cancel()
		}
		var message []byte
		err := stream.RecvMsg(&message)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if out.HeaderMs < 0 {
			out.HeaderMs = time.Since(start).Milliseconds()
		}
		if out.Messages < o.count && string(message) != string(o.pattern(out.Messages)) {
			out.Mismatch = true
		}
		out.Messages++
		out.Bytes += len(message)
		if o.pingPong && out.Messages < o.count {
			next <- struct{}{}
		}
	}
}
