package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// What the app does with a call is said in the call's metadata:
//
//	probe-header: name=value    an initial metadata field (repeatable)
//	probe-trailer: name=value   a trailer (repeatable)
//	probe-code, probe-message   the status of the answer
//	probe-message-bin           the same for texts that are not ASCII
//	probe-details-bin           a google.protobuf.Any's value to attach to the status
//	probe-reply                 echo (default), none, or a number of messages to send
//	probe-size                  bytes of each message sent because of a number
//	probe-flush                 send the initial metadata before anything is read
//	probe-sleep-ms              wait so long (or until cancelled) before the first answer
//	probe-abrupt                answer at once, without reading the request to its end
type plan struct {
	header, trailer metadata.MD
	status          *status.Status
	replies, size   int
	echo, flush     bool
	abrupt          bool
	sleep           time.Duration
}

const repliesMax = 1 << 20

func planOf(md metadata.MD) (plan, error) {
	p := plan{header: metadata.MD{}, trailer: metadata.MD{}, echo: true}
	for name, into := range map[string]metadata.MD{"probe-header": p.header, "probe-trailer": p.trailer} {
		for _, text := range md.Get(name) {
			key, value, err := split(text)
			if err != nil {
				return p, err
			}
			into.Append(key, value)
		}
	}
	first := func(name string) string {
		if values := md.Get(name); len(values) > 0 {
			return values[0]
		}
		return ""
	}
	number := func(name string) int {
		n, _ := strconv.Atoi(first(name))
		return n
	}
	switch reply := first("probe-reply"); reply {
	case "", "echo":
	case "none":
		p.echo = false
	default:
		p.echo, p.replies = false, min(number("probe-reply"), repliesMax)
	}
	p.size = number("probe-size")
	p.flush = first("probe-flush") != ""
	p.abrupt = first("probe-abrupt") != ""
	p.sleep = time.Duration(number("probe-sleep-ms")) * time.Millisecond
	answer := &spb.Status{Code: int32(number("probe-code")), Message: first("probe-message")}
	if message := first("probe-message-bin"); message != "" {
		answer.Message = message
	}
	if detail := first("probe-details-bin"); detail != "" {
		answer.Details = append(answer.Details, &anypb.Any{
			TypeUrl: "type.googleapis.com/probe.Detail", Value: []byte(detail)})
	}
	p.status = status.FromProto(answer)
	return p, nil
}

type arrival struct {
	Event      string              `json:"event"`
	Call       int64               `json:"call"`
	Method     string              `json:"method"`
	Metadata   map[string][]string `json:"metadata"`
	Peer       string              `json:"peer"`
	DeadlineMs *int64              `json:"deadline_ms"`
}

type departure struct {
	Event    string `json:"event"`
	Call     int64  `json:"call"`
	Messages int    `json:"messages"`
	Bytes    int    `json:"bytes"`
	Context  string `json:"context"`
	Error    string `json:"error"`
}

func serve(stream grpc.ServerStream, done *departure) error {
	ctx := stream.Context()
	md, _ := metadata.FromIncomingContext(ctx)
	plan, err := planOf(md)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	must(stream.SetHeader(plan.header))
	stream.SetTrailer(plan.trailer)
	if plan.flush {
		if err := stream.SendHeader(nil); err != nil {
			return err
		}
	}
	if plan.sleep > 0 {
		select {
		case <-time.After(plan.sleep):
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	for !plan.abrupt {
		var message []byte
		err := stream.RecvMsg(&message)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		done.Messages++
		done.Bytes += len(message)
		if plan.echo {
			if err := stream.SendMsg(&message); err != nil {
				return err
			}
		}
	}
	message := make([]byte, plan.size)
	for range plan.replies {
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
	}
	return plan.status.Err()
}

func runApp(args []string) {
	flags := flag.NewFlagSet("app", flag.ExitOnError)
	address := flags.String("address", "127.0.0.1:0", "where to listen; unix:PATH is a socket")
	maxAge := flags.Duration("max-age", 0, "tell connections to go away at this age; 0 is never")
	maxStreams := flags.Uint("max-streams", 0, "calls at once on a connection; 0 is any number")
	identity := tlsFlags(flags)
	flags.Parse(args)

	network, at := "tcp", *address
	if path, ok := strings.CutPrefix(at, "unix:"); ok {
		network, at = "unix", path
	}
	listener, err := net.Listen(network, at)
	must(err)
	calls := make(chan int64, 1)
	calls <- 0
	handler := func(_ any, stream grpc.ServerStream) error {
		call := <-calls + 1
		calls <- call
		sayArrival(stream.Context(), call)
		done := departure{Event: "end", Call: call}
		err := serve(stream, &done)
		if ctxErr := stream.Context().Err(); ctxErr != nil {
			done.Context = ctxErr.Error()
		}
		if err != nil {
			done.Error = err.Error()
		}
		say(done)
		return err
	}
	options := []grpc.ServerOption{
		grpc.UnknownServiceHandler(handler), grpc.ForceServerCodec(raw{"proto"}),
		grpc.MaxRecvMsgSize(1 << 30), grpc.MaxSendMsgSize(1 << 30),
	}
	if *maxAge > 0 {
		options = append(options, grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: *maxAge, MaxConnectionAgeGrace: time.Minute}))
	}
	if *maxStreams > 0 {
		options = append(options, grpc.MaxConcurrentStreams(uint32(*maxStreams)))
	}
	if config := identity.server(); config != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	say(map[string]string{"event": "listening", "address": listener.Addr().String()})
	must(grpc.NewServer(options...).Serve(listener))
}

func sayArrival(ctx context.Context, call int64) {
	md, _ := metadata.FromIncomingContext(ctx)
	from, _ := peer.FromContext(ctx)
	method, _ := grpc.Method(ctx)
	seen := arrival{Event: "call", Call: call, Method: method, Metadata: readable(md),
		Peer: from.Addr.String()}
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline).Milliseconds()
		seen.DeadlineMs = &left
	}
	say(seen)
}
