// Command probe shows what really crosses a sidecar. It speaks gRPC without any proto definition,
// so every method and every message is possible, and it reports on stdout, one JSON object a line.
//
//	probe app   an app: prints what arrives at it, answers as the caller's metadata asks
//	probe call  a caller: prints what comes back
//	probe wire  an app on bare HTTP/2 frames: prints the exact fields in their order
//	probe mint  writes an X.509 SVID of any id and lifetime, signed by a given issuer
//	probe without io_uring_setup -- PROGRAM ARG...
//	            runs a program to which the kernel refuses that system call
package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"

	"google.golang.org/grpc/metadata"
)

func main() {
	if len(os.Args) < 2 {
		fail("usage: probe app|call|wire|mint|without [flags]")
	}
	args := os.Args[2:]
	switch os.Args[1] {
	case "app":
		runApp(args)
	case "call":
		runCall(args)
	case "wire":
		runWire(args)
	case "mint":
		runMint(args)
	case "without":
		runWithout(args)
	default:
		fail("probe has no subcommand " + os.Args[1])
	}
}

func fail(reason string) {
	fmt.Fprintln(os.Stderr, "probe: "+reason)
	os.Exit(2)
}

func must(err error) {
	if err != nil {
		fail(err.Error())
	}
}

var stdout sync.Mutex

func say(event any) {
	line, err := json.Marshal(event)
	must(err)
	stdout.Lock()
	defer stdout.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

// readable turns binary metadata into base64, since JSON has no bytes.
func readable(md metadata.MD) map[string][]string {
	out := make(map[string][]string, len(md))
	for key, values := range md {
		for _, value := range values {
			if strings.HasSuffix(key, "-bin") {
				value = base64.RawStdEncoding.EncodeToString([]byte(value))
			}
			out[key] = append(out[key], value)
		}
	}
	return out
}

// fields is a repeatable flag "name:value" (or "name=value"); -bin values are given as base64.
type fields struct{ md metadata.MD }

func (f *fields) String() string { return "" }

func (f *fields) Set(text string) error {
	key, value, err := split(text)
	if err != nil {
		return err
	}
	if f.md == nil {
		f.md = metadata.MD{}
	}
	f.md.Append(key, value)
	return nil
}

func split(text string) (string, string, error) {
	at := strings.IndexAny(text, ":=")
	if at < 1 {
		return "", "", fmt.Errorf("%q is not name:value", text)
	}
	key, value := strings.ToLower(text[:at]), text[at+1:]
	if strings.HasSuffix(key, "-bin") {
		raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
		if err != nil {
			return "", "", err
		}
		value = string(raw)
	}
	return key, value, nil
}

// raw is the codec: a message is its bytes.
type raw struct{ name string }

func (r raw) Name() string { return r.name }

func (raw) Marshal(message any) ([]byte, error) { return *message.(*[]byte), nil }

func (raw) Unmarshal(data []byte, message any) error {
	*message.(*[]byte) = append([]byte(nil), data...)
	return nil
}
