"""A WebSocket server: websocket_pod.py NAME ADDRESS PORT. What it does is in the path."""

import asyncio
import http
import json
import sys

import websockets

name, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
# How clients of /listen ended, by the word in the query.
ended = {}


async def talk(socket):
    path, _, word = socket.request.path.partition("?")
    if path == "/echo":
        async for message in socket:
            await socket.send(message)
    elif path == "/tell":
        field = socket.request.headers.get
        extensions = [one.name for one in socket.protocol.extensions]
        said = [name, socket.subprotocol, extensions, field("X-Forwarded-For"), field("Cookie"), word]
        await socket.send(json.dumps(said))
    elif path == "/ping":
        await (await socket.ping(b"are you there"))
        await socket.send("yes")
    elif path == "/leave":
        await socket.close(4001, "shop is shut")
    elif path == "/break":
        socket.transport.abort()
    elif path == "/listen":
        await socket.wait_closed()
        ended[word] = [socket.close_code, socket.close_reason]
    elif path == "/ended":
        while word not in ended:
            await asyncio.sleep(0.01)
        await socket.send(json.dumps(ended[word]))


def refuse(socket, request):
    if request.path == "/refused":
        return socket.respond(http.HTTPStatus.FORBIDDEN, "not you\n")


def choose(socket, offered):
    return "chat.v2" if "chat.v2" in offered else None


async def main():
    settings = {"select_subprotocol": choose, "max_size": None, "ping_interval": None}
    async with websockets.serve(talk, address, port, process_request=refuse, **settings) as server:
        await server.serve_forever()


asyncio.run(main())
