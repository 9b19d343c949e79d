package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

type wireCall struct {
	Event  string      `json:"event"`
	Stream uint32      `json:"stream"`
	Fields [][2]string `json:"fields"`
}

// runWire answers each call with its own request body (or one message of -body) and trailers. It does not do flow control
// (its windows never run out in the tests that use it), since it exists to show fields only.
func runWire(args []string) {
	flags := flag.NewFlagSet("wire", flag.ExitOnError)
	address := flags.String("address", "127.0.0.1:0", "where to listen")
	body := flags.String("body", "", "answer with this message whatever the request holds")
	var header, trailer fields
	flags.Var(&header, "header", "a field of the initial metadata (repeatable)")
	flags.Var(&trailer, "trailer", "a trailer (repeatable)")
	flags.Parse(args)

	listener, err := net.Listen("tcp", *address)
	must(err)
	say(map[string]string{"event": "listening", "address": listener.Addr().String()})
	for {
		conn, err := listener.Accept()
		must(err)
		go (&wire{conn: conn, header: header, trailer: trailer, body: framed(*body)}).run()
	}
}

// framed puts gRPC's five octets before a message; nil without one.
func framed(text string) []byte {
	if text == "" {
		return nil
	}
	prefix := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text)))
	return append(prefix, text...)
}

type wire struct {
	conn            net.Conn
	header, trailer fields
	body            []byte
	framer          *http2.Framer
	block           bytes.Buffer
	encoder         *hpack.Encoder
	bodies          map[uint32][]byte
}

func (w *wire) run() {
	defer w.conn.Close()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(w.conn, preface); err != nil {
		return
	}
	if string(preface) != http2.ClientPreface {
		say(map[string]string{"event": "garbage", "bytes": string(preface)})
		return
	}
	w.framer = http2.NewFramer(w.conn, w.conn)
	w.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.encoder = hpack.NewEncoder(&w.block)
	w.bodies = map[uint32][]byte{}
	if err := w.framer.WriteSettings(); err != nil {
		return
	}
	for {
		frame, err := w.framer.ReadFrame()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				say(map[string]string{"event": "closed", "error": err.Error()})
			}
			return
		}
		if w.handle(frame) != nil {
			return
		}
	}
}

func (w *wire) handle(frame http2.Frame) error {
	switch frame := frame.(type) {
	case *http2.SettingsFrame:
		if !frame.IsAck() {
			return w.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !frame.IsAck() {
			return w.framer.WritePing(true, frame.Data)
		}
	case *http2.MetaHeadersFrame:
		call := wireCall{Event: "call", Stream: frame.StreamID}
		for _, field := range frame.Fields {
			call.Fields = append(call.Fields, [2]string{field.Name, field.Value})
		}
		say(call)
		if frame.StreamEnded() {
			return w.answer(frame.StreamID)
		}
	case *http2.DataFrame:
		w.bodies[frame.StreamID] = append(w.bodies[frame.StreamID], frame.Data()...)
		if len(frame.Data()) > 0 {
			if err := w.framer.WriteWindowUpdate(0, uint32(len(frame.Data()))); err != nil {
				return err
			}
		}
		if frame.StreamEnded() {
			return w.answer(frame.StreamID)
		}
	}
	return nil
}

func (w *wire) answer(stream uint32) error {
	body := w.bodies[stream]
	delete(w.bodies, stream)
	if w.body != nil {
		body = w.body
	}
	head := []string{":status", "200", "content-type", "application/grpc"}
	if err := w.fields(stream, head, w.header, false); err != nil {
		return err
	}
	if len(body) > 0 {
		if err := w.framer.WriteData(stream, false, body); err != nil {
			return err
		}
	}
	return w.fields(stream, []string{"grpc-status", "0"}, w.trailer, true)
}

func (w *wire) fields(stream uint32, own []string, more fields, end bool) error {
	w.block.Reset()
	for i := 0; i < len(own); i += 2 {
		w.encoder.WriteField(hpack.HeaderField{Name: own[i], Value: own[i+1]})
	}
	for name, values := range more.md {
		for _, value := range values {
			w.encoder.WriteField(hpack.HeaderField{Name: name, Value: value})
		}
	}
	return w.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: w.block.Bytes(), EndHeaders: true, EndStream: end})
}
