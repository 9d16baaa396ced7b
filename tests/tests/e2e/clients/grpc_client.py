"""Calls through a gateway: grpc_client.py ADDRESS:PORT HOST [AUTHORITY.pem]; over TLS if there is an authority.

Prints a line of JSON for each subject: [subject, what was seen]. Whoever runs it judges.
"""

import json
import queue
import sys
import time

import grpc

target, host = sys.argv[1], sys.argv[2]
options = [
    ("grpc.default_authority", host),
    ("grpc.ssl_target_name_override", host),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]
if len(sys.argv) > 3:
    with open(sys.argv[3], "rb") as file:
        trusted = grpc.ssl_channel_credentials(file.read())
    channel = grpc.secure_channel(target, trusted, options)
else:
    channel = grpc.insecure_channel(target, options)
PATIENCE = 10
echo = channel.unary_unary("/lab.Test/Echo")
wait = channel.unary_unary("/lab.Test/Wait")


def say(subject, *seen):
    print(json.dumps([subject, *seen]), flush=True)


def failure(call):
    """Status and text of a call that must fail."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    sys.exit("a call that must fail did not")


def ended(word):
    """Whether a pod says soon that the call with this word ended before its time."""
    ask = channel.unary_unary("/lab.Test/HasEnded")
    give_up = time.monotonic() + 5
    while time.monotonic() < give_up:
        if ask(word, timeout=PATIENCE) == b"yes":
            return True
        time.sleep(0.02)
    return False


# One call, with metadata both ways.
answer, call = echo.with_call(
    b"hello", timeout=PATIENCE, metadata=[("x-word", "a, b"), ("x-word-bin", b"\x00\xff\x10")]
)
back = dict(call.initial_metadata())
say("unary", answer.decode(), back["x-word"], back["x-word-bin"].hex(), dict(call.trailing_metadata())["x-bytes"])
say("empty message", len(echo(b"", timeout=PATIENCE)))

# Messages larger than any window.
large = bytes(range(256)) * (3 << 12)
say("large message", len(large), echo(large, timeout=PATIENCE) == large)
packed = echo(large, timeout=PATIENCE, compression=grpc.Compression.Gzip)
say("packed message", packed == large)

# Streams of each kind.
got = list(channel.unary_stream("/lab.Test/Count")(b"40 65536", timeout=PATIENCE))
say("server stream", len(got), all(one == bytes([number]) * 65536 for number, one in enumerate(got)))
sizes = [0, 1, 100_000, 1 << 20]
measured = channel.stream_unary("/lab.Test/Measure")((b"x" * size for size in sizes), timeout=PATIENCE)
say("client stream", measured.decode())
say("client stream of nothing", channel.stream_unary("/lab.Test/Measure")(iter([]), timeout=PATIENCE).decode())
ours = queue.SimpleQueue()
heard = channel.stream_stream("/lab.Test/Chat")(iter(ours.get, None), timeout=PATIENCE)
turns = []
for word in (b"one", b"two", b"three"):
    # Nothing is sent before what came before was answered.
    ours.put(word)
    turns.append(next(heard).decode().split(" heard ")[1])
ours.put(None)
say("both ways, in turns", *turns, next(heard, "over"), heard.code().name)

# What is no success.
error = failure(lambda: channel.unary_unary("/lab.Test/Fail")(b"", timeout=PATIENCE))
trailers = dict(error.trailing_metadata())
say("status", error.code().name, error.details(), trailers["x-why"], trailers["grpc-status-details-bin"].hex())
error = failure(lambda: channel.unary_unary("/lab.Test/Nothing")(b"", timeout=PATIENCE))
say("unknown method", error.code().name)
error = failure(lambda: wait(b"late", timeout=0.3))
say("deadline", error.code().name, ended(b"late"))
call = wait.future(b"unwanted", timeout=PATIENCE)
time.sleep(0.1)
call.cancel()
say("cancelled", call.code().name, ended(b"unwanted"))

# Many at once share one connection, and both pods.
calls = [echo.future(str(number).encode(), timeout=PATIENCE) for number in range(100)]
right = sum(call.result() == str(number).encode() for number, call in enumerate(calls))
pods = sorted({dict(call.initial_metadata())["x-pod"] for call in calls})
say("at once", right, pods)

# A stream that stays open while whoever runs this changes something, and says so by a line.
ours = queue.SimpleQueue()
heard = channel.stream_stream("/lab.Test/Chat")(iter(ours.get, None), timeout=60)
ours.put(b"before")
say("held", next(heard).decode().split(" heard ")[1])
sys.stdin.readline()
ours.put(b"after")
say("still held", next(heard).decode().split(" heard ")[1], echo(b"more", timeout=PATIENCE).decode())
ours.put(None)

# Whoever runs this ends one of the pods.
sys.stdin.readline()
pods = set()
for _ in range(20):
    pods.add(dict(echo.with_call(b"", timeout=PATIENCE)[1].initial_metadata())["x-pod"])
say("one pod gone", sorted(pods))
sys.stdin.readline()
error = failure(lambda: echo(b"", timeout=PATIENCE))
say("no pod left", error.code().name)
channel.close()
