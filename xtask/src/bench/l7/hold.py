"""Opens connections, asks once over each, holds them: hold.py HOST PORT COUNT plain|tls.

Says "held N" once all that are still open are N, and goes on until its stdin closes.
"""
import socket
import ssl
import sys

host, port, count, kind = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
ask = f"GET /33 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
held = []
for _ in range(count):
    one = socket.create_connection((host, port), timeout=10)
    # Else the request waits for the acknowledgement of the handshake's end, 40 ms each time.
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if kind == "tls":
        one = context.wrap_socket(one)
    one.sendall(ask)
    answer = b""
    # The body is 33 bytes.
    while len(answer.partition(b"\r\n\r\n")[2]) < 33:
        piece = one.recv(4096)
        if not piece:
            sys.exit(f"closed after {len(held)} connections, having said {answer!r}")
        answer += piece
    held.append(one)


def still_open(one):
    try:
        # Of the socket itself, also under TLS: nothing is taken away.
        return socket.socket.recv(one, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False


for one in held:
    one.setblocking(False)
print("held", sum(map(still_open, held)), flush=True)
sys.stdin.read()
