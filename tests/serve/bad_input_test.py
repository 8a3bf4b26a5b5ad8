"""Hostile bytes on raw sockets: each class is answered as stated, in time, within the memory bound."""
import gzip
import json
import os
import socket
import struct
import sys
import time
import unittest
import zlib

from server import identity, serving, wait_for

ISOLINE = sys.argv.pop(1)
BODY_MB = 8


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.context = serving(ISOLINE, {"m": identity()}, "--max-body-mb", str(BODY_MB), "--head-timeout", "0.7", "--transfer-timeout", "0.7", "--min-kb-per-s", "8192",
                              "--max-connections", "40", "--max-in-flight-mb", "32")
        cls.server = cls.context.__enter__()
        cls.server.request("/v2")
        cls.rss_kb = cls.server.rss_kb()

    @classmethod
    def tearDownClass(cls):
        cls.context.__exit__(None, None, None)

    def tearDown(self):
        # Whatever came: it lives, answers at once, and holds no more than the body limit and 64 MiB above where it began.
        start = time.monotonic()
        self.assertEqual(self.server.request("/v2/health/ready")[0], 200)
        self.assertLess(time.monotonic() - start, 1)
        if not os.environ.get("ISOLINE_SANITIZED"):  # freed memory stays in quarantine there
            self.assertLess(self.server.rss_kb() - self.rss_kb, (BODY_MB + 64) << 10)

    def connect(self, port=None):
        s = socket.create_connection(("127.0.0.1", port or self.server.http))
        s.settimeout(5)
        return s

    def ask(self, data, within=1.0):
        """Status of the first answer to these bytes, and its JSON."""
        with self.connect() as s:
            start = time.monotonic()
            try:
                s.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                pass
            answer = b""
            while b"\r\n\r\n" not in answer:
                piece = s.recv(65536)
                if not piece:
                    return None, None
                answer += piece
            self.assertLess(time.monotonic() - start, within)
            head, body = answer.split(b"\r\n\r\n", 1)
            length = [int(l.split(b":")[1]) for l in head.split(b"\r\n") if l.lower().startswith(b"content-length")][0]
            while len(body) < length:
                body += s.recv(65536)
            return int(head.split()[1]), json.loads(body[:length]) if length else None

    def refused(self, want, data, **options):
        status, answer = self.ask(data, **options)
        self.assertEqual(status, want, data[:120])
        self.assertTrue(answer["error"])

    def post(self, headers, body=b""):
        return b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n" + body

    def test_content_length_lies(self):
        self.refused(413, self.post(b"Content-Length: 100000000000000\r\n"))
        self.refused(413, self.post(b"Content-Length: 99999999999999999999999\r\n"))
        self.refused(400, self.post(b"Content-Length: -1\r\n"))
        self.refused(400, self.post(b"Content-Length: 1e3\r\n"))
        self.refused(400, self.post(b"Content-Length: 3\r\nContent-Length: 4\r\n", b"abcd"))
        self.refused(400, self.post(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"))
        self.refused(408, self.post(b"Content-Length: 100\r\n", b"{"), within=2)

    def test_rejected_body_is_read(self):
        # A client that sends all of a body above the limit still gets the answer.
        self.refused(413, self.post(b"Content-Length: %d\r\n" % (BODY_MB * 2 << 20), b"x" * (BODY_MB * 2 << 20)), within=3)

    def test_chunk_lies(self):
        chunked = b"Transfer-Encoding: chunked\r\n"
        self.refused(413, self.post(chunked, b"FFFFFFFFFFFFFFFF\r\n"))
        self.refused(400, self.post(chunked, b"FFFFFFFFFFFFFFFFF\r\n"))
        self.refused(400, self.post(chunked, b"-5\r\nabc"))
        self.refused(400, self.post(chunked, b"3\r\nabcdef\r\n0\r\n\r\n"))
        self.refused(413, self.post(chunked, b"100000\r\n" + b"x" * 0x100000 + b"\r\n" + b"7F00000\r\n"))
        self.refused(408, self.post(chunked, b"5\r\nab"), within=2)
        self.refused(501, self.post(b"Transfer-Encoding: gzip, chunked\r\n"))

    def test_heads(self):
        self.refused(408, b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n", within=2)
        self.refused(431, b"GET /v2 HTTP/1.1\r\nA: " + b"x" * 20000 + b"\r\n\r\n")
        self.refused(431, b"GET /v2 HTTP/1.1\r\n" + b"A: b\r\n" * 150 + b"\r\n")
        self.refused(400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
        self.refused(400, b"GET /v2 HTTP/1.1\r\nA b\r\n\r\n")
        self.refused(400, b"GET /v2 HTTP/1.1\r\nA: b\r\n folded\r\n\r\n")
        self.refused(400, b"GET /v2 HTTP/1.1\r\nA: b\0c\r\n\r\n")
        self.refused(400, b"GET v2 HTTP/1.1\r\n\r\n")
        self.refused(505, b"GET /v2 HTTP/3.0\r\n\r\n")
        self.refused(400, b"nonsense\r\n\r\n")
        self.refused(417, b"GET /v2 HTTP/1.1\r\nExpect: the-unexpected\r\n\r\n")

    def test_inflate_bombs(self):
        bomb = gzip.compress(b"\0" * (200 << 20), 9)
        self.assertLess(len(bomb), 220000)
        self.refused(413, self.post(b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(bomb), bomb))
        bomb = zlib.compress(b" " * (200 << 20), 9)
        self.refused(413, self.post(b"Content-Encoding: deflate\r\nContent-Length: %d\r\n" % len(bomb), bomb))
        cut = gzip.compress(b"x" * 1000)[:-4]
        self.refused(400, self.post(b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(cut), cut))

    def test_json(self):
        for text in (b'{"inputs":' + b"[" * 5000000, b'{"a":' * 100000, b'{"inputs":[{"shape":[%s]}]}' % (b"9" * 400),
                     b'{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[1,1],"data":[1e999]}]}',
                     b'{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[4611686018427387904,4],"data":[]}]}',
                     b'{"inputs":[' + b"{}," * 1000000 + b"{}]}", b'{"id":"\\ud800"}', b'{"id":"' + b"\xff" * 9 + b'"}'):
            self.refused(400, self.post(b"Content-Length: %d\r\n" % len(text), text))

    def test_too_many_connections(self):
        held = [self.connect() for _ in range(45)]
        answers = []
        for s in held[40:]:
            s.settimeout(1)
            answers.append(s.recv(100))
        for s in held:
            s.close()
        self.assertTrue(all(a.startswith(b"HTTP/1.1 503") for a in answers[1:]), answers)
        self.assertTrue(wait_for(lambda: self.server.request("/v2")[0] == 200))

    def test_memory_of_many_bodies(self):
        # Bodies that never end, together above --max-in-flight-mb: the last are refused with 503.
        held = []
        statuses = []
        for _ in range(8):
            s = self.connect()
            held.append(s)
            s.sendall(self.post(b"Content-Length: %d\r\n" % (BODY_MB << 20), b"x" * ((BODY_MB << 20) - 1)))
        for s in held:
            try:
                statuses.append(s.recv(12)[-3:])
            except socket.timeout:
                statuses.append(b"")
            s.close()
        self.assertIn(b"503", statuses)
        self.assertTrue(set(statuses) <= {b"503", b"408"}, statuses)

    def test_slow_reader(self):
        data = b"\0" * (4 << 20)
        head = json.dumps({"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, len(data) // 4],
                                       "parameters": {"binary_data_size": len(data)}}], "parameters": {"binary_data_output": True}}).encode()
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", self.server.http))
        s.sendall(self.post(b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n" % (len(head), len(head) + len(data)), head + data))

        def held():
            text = self.server.request("/metrics")[2].decode()
            return int(text.split("\nisoline_connections ")[1].split()[0])
        self.assertTrue(wait_for(lambda: held() >= 2, 2))
        self.assertTrue(wait_for(lambda: held() == 1, 5))  # the reader was given up
        s.close()

    def test_http2(self):
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        settings = b"\0\0\0\x04\0\0\0\0\0"
        for data in (b"GET / HTTP/1.1\r\n\r\n", preface + b"\xff" * 100, preface + settings + b"\xff\xff\xff\x00\0\0\0\0\x01",
                     preface + settings + b"\0\0\x05\x01\x05\0\0\0\x01\xff\xff\xff\xff\xff",
                     preface + settings + (b"\0\0\x08\x06\0\0\0\0\0" + b"12345678") * 5000):
            with self.connect(self.server.grpc) as s:
                try:
                    s.sendall(data)
                    while s.recv(65536):
                        pass
                except (ConnectionResetError, BrokenPipeError, socket.timeout):
                    pass
        with self.connect(self.server.grpc) as s:  # says nothing
            start = time.monotonic()
            while s.recv(65536):
                pass
            self.assertLess(time.monotonic() - start, 2)


if __name__ == "__main__":
    unittest.main()
