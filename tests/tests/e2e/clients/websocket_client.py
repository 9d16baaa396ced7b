"""Talks through a gateway: websocket_client.py ADDRESS PORT HOST [AUTHORITY.pem]; over TLS if there is an authority.

Prints a line of JSON for each subject: [subject, what was seen]. Whoever runs it judges.
"""

import asyncio
import json
import os
import ssl
import sys

from websockets import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

address, port, host = sys.argv[1], int(sys.argv[2]), sys.argv[3]
trusted = ssl.create_default_context(cafile=sys.argv[4]) if len(sys.argv) > 4 else None
settings = {"host": address, "port": port, "ssl": trusted, "proxy": None, "max_size": None, "ping_interval": None}
plain = {"compression": None}


def opened(path, **more):
    scheme = "wss" if trusted else "ws"
    return connect(f"{scheme}://{host}{path}", **settings, **more)


def say(subject, *seen):
    print(json.dumps([subject, *seen]), flush=True)


async def told(path):
    """What the pod says there, as JSON."""
    async with opened(path, **plain) as one:
        return json.loads(await one.recv())


async def end(path):
    """How a connection ends that the pod ends: code and reason, if it said so."""
    try:
        async with opened(path) as one:
            await one.recv()
    except ConnectionClosed as over:
        return over.rcvd and [over.rcvd.code, over.rcvd.reason]
    sys.exit("a connection that must end did not")


async def answers(many):
    """How many of these echo."""
    for number, one in enumerate(many):
        await one.send(str(number))
    return sum([await one.recv() == str(number) for number, one in enumerate(many)])


async def talk():
    large = "größer" * 150_000
    async with opened("/echo", **plain) as one:
        for message in ("größer", b"\x00\xff", ""):
            await one.send(message)
        say("echo", await one.recv(), (await one.recv()).hex(), await one.recv())
        # Each part is a frame of its own.
        await one.send(["in ", "three ", "parts"])
        say("parts", await one.recv())
        await (await one.ping(b"are you there"))
        say("ping")
        await one.send(large)
        say("large text", await one.recv() == large)
        noise = os.urandom(1 << 20)
        await one.send(noise)
        say("large binary", await one.recv() == noise)
    async with opened("/echo") as one:
        await one.send(large)
        say("packed", [it.name for it in one.protocol.extensions], await one.recv() == large)
    offered = {"subprotocols": ["chat.v1", "chat.v2"], "additional_headers": {"Cookie": "a=b; c=d"}}
    async with opened("/tell?a=%20b", **offered) as one:
        say("told", one.subprotocol, json.loads(await one.recv()))
    async with opened("/ping", **plain) as one:
        say("pinged", await one.recv())

    say("pod leaves", await end("/leave"))
    say("pod breaks off", await end("/break"))
    async with opened("/listen?bye", **plain) as one:
        await one.close(4002, "enough")
    say("client leaves", await told("/ended?bye"))
    one = await opened("/listen?gone", **plain)
    one.transport.abort()
    say("client breaks off", await told("/ended?gone"))
    try:
        await opened("/refused")
    except InvalidStatus as refused:
        say("refused", refused.response.status_code, refused.response.body.decode())

    held = [await opened("/echo", **plain) for _ in range(50)]
    say("at once", await answers(held))
    # Whoever runs this changes something, and says so by a line.
    await asyncio.to_thread(sys.stdin.readline)
    say("still held", await answers(held))
    for one in held:
        await one.close()


asyncio.run(asyncio.wait_for(talk(), 60))
