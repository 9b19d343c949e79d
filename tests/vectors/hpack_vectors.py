#!/usr/bin/env python3
"""HPACK test vectors made by a foreign encoder: the `hpack` package of PyPI.

    pip install hpack && tests/vectors/hpack_vectors.py > tests/vectors/hpack.txt
    tests/vectors/hpack_vectors.py check < blocks.txt    # the other way: blocks of ours

One word and its arguments a line, octets as hex, `-` for none:

    connection SIZE          a new pair of tables, of this size
    size SIZE                the decoder's side announces this size, acknowledged at once
    block HEX                one field block
    field NAME VALUE KIND    what the block says, in order; KIND is `plain` or `never`
"""

import random
import sys

import hpack

PATHS = ["/", "/helloworld.Greeter/SayHello", "/dapr.proto.runtime.v1.Dapr/InvokeService"]
AGENTS = ["grpc-go/1.70.0", "grpc-python/1.68.0 grpc-c/45.0.0 (linux; chttp2)", "tonic/0.12.3"]


def text(octets):
    return octets.hex() or "-"


def octets(text):
    return b"" if text == "-" else bytes.fromhex(text)


def fields(rng):
    """A gRPC request or response, with some fields of any octets."""
    if rng.random() < 0.6:
        yield b":method", b"POST", False
        yield b":scheme", rng.choice([b"http", b"https"]), False
        yield b":path", rng.choice(PATHS).encode(), False
        yield b":authority", b"127.0.0.1:%d" % rng.choice([50001, 50002, 3500]), False
        yield b"te", b"trailers", False
        yield b"user-agent", rng.choice(AGENTS).encode(), False
    else:
        yield b":status", rng.choice([b"200", b"404", b"302", b"503"]), False
        yield b"grpc-status", b"%d" % rng.randrange(17), False
    yield b"content-type", b"application/grpc", False
    if rng.random() < 0.7:
        trace = b"00-%032x-%016x-01" % (rng.getrandbits(128), rng.getrandbits(64))
        yield b"traceparent", trace, False
    if rng.random() < 0.3:
        yield b"authorization", b"Bearer %x" % rng.getrandbits(400), True
    while rng.random() < 0.5:
        # That encoder indexes a never-indexed field whose pair its table holds: other names.
        never = rng.random() < 0.1
        name = (b"s-%d" if never else b"x-%d") % rng.randrange(6)
        value = bytes(rng.randrange(256) for _ in range(rng.randrange(40)))
        yield name, rng.choice([value, b"", b"v" * rng.randrange(200)]), never


def make():
    print("# Made by tests/vectors/hpack_vectors.py with hpack", hpack.__version__)
    for seed in range(12):
        rng = random.Random(seed)
        size = [4096, 256, 0, 1024][seed % 4]
        encoder = hpack.Encoder()
        # The update that this causes is in the first block.
        encoder.header_table_size = size
        print("connection", size)
        for _ in range(25):
            if rng.random() < 0.1:
                size = rng.choice([0, 64, 256, 700, 4096])
                encoder.header_table_size = size
                print("size", size)
            section = list(fields(rng))
            tuples = [
                hpack.NeverIndexedHeaderTuple(name, value) if never else (name, value)
                for name, value, never in section
            ]
            print("block", text(encoder.encode(tuples, huffman=rng.random() < 0.7)))
            for name, value, never in section:
                print("field", text(name), text(value), "never" if never else "plain")


def check():
    decoder, expected, blocks = None, [], 0
    for line in sys.stdin:
        word, *arguments = line.split()
        if word == "connection":
            assert not expected
            decoder = hpack.Decoder()
            decoder.max_allowed_table_size = int(arguments[0])
        elif word == "size":
            decoder.max_allowed_table_size = int(arguments[0])
        elif word == "block":
            assert not expected, expected
            blocks += 1
            expected = [
                (bytes(field[0]), bytes(field[1]), "plain" if field.indexable else "never")
                for field in decoder.decode(octets(arguments[0]), raw=True)
            ]
        elif word == "field":
            name, value, kind = arguments
            assert expected.pop(0) == (octets(name), octets(value), kind)
    assert decoder and not expected
    print(blocks, "blocks agree")


if __name__ == "__main__":
    check() if sys.argv[1:] == ["check"] else make()
