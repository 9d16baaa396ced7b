"""A gRPC server: grpc_pod.py NAME ADDRESS:PORT. Messages are bytes, as they come."""

import sys
import threading
from concurrent import futures

import grpc

name, listen = sys.argv[1], sys.argv[2]
# Calls of Wait that ended before their time, by the word they were called with.
ended = set()


def echo(message, context):
    told = dict(context.invocation_metadata())
    sent = [(key, told[key]) for key in ("x-word", "x-word-bin") if key in told]
    context.send_initial_metadata([("x-pod", name), *sent])
    context.set_trailing_metadata([("x-bytes", str(len(message)))])
    return message


def count(message, context):
    """As many messages as the first word says, each as long as the second one does."""
    many, long = map(int, message.split())
    return (bytes([number % 256]) * long for number in range(many))


def measure(messages, context):
    return " ".join(str(len(message)) for message in messages).encode()


def chat(messages, context):
    for message in messages:
        yield name.encode() + b" heard " + message


def fail(message, context):
    context.set_trailing_metadata([("x-why", "shop is shut"), ("grpc-status-details-bin", b"\x08\x09\xff")])
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "100 % shut: größer")


def wait(message, context):
    over = threading.Event()
    context.add_callback(over.set)
    if over.wait(10):
        ended.add(message)
    return b""


def has_ended(message, context):
    return b"yes" if message in ended else b"no"


METHODS = {
    "/lab.Test/Echo": grpc.unary_unary_rpc_method_handler(echo),
    "/lab.Test/Count": grpc.unary_stream_rpc_method_handler(count),
    "/lab.Test/Measure": grpc.stream_unary_rpc_method_handler(measure),
    "/lab.Test/Chat": grpc.stream_stream_rpc_method_handler(chat),
    "/lab.Test/Fail": grpc.unary_unary_rpc_method_handler(fail),
    "/lab.Test/Wait": grpc.unary_unary_rpc_method_handler(wait),
    "/lab.Test/HasEnded": grpc.unary_unary_rpc_method_handler(has_ended),
}


class Lab(grpc.GenericRpcHandler):
    def service(self, call):
        return METHODS.get(call.method)


server = grpc.server(
    futures.ThreadPoolExecutor(32),
    handlers=[Lab()],
    options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
)
server.add_insecure_port(listen)
server.start()
server.wait_for_termination()
