"""A server of ranged GETs over a folder, slow in stated ways: what a distant or ill object store does to a reader.

`python -m tests.benchmarks.ranged_server FOLDER` prints its port, then answers `GET /bucket/key` with `Range`, each
`--delay` seconds late; of the answers `--slow-share` come `--slow-s` late, `--hang-share` never, and `--error-share`
are 503. Which one is drawn by the number of the request, so two runs differ only in what they ask.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

_RANGE = re.compile(rb"\r\nrange: bytes=(\d+)-(\d+)", re.IGNORECASE)


class _Server:
    def __init__(self, options: argparse.Namespace) -> None:
        self._root = options.folder
        self._options = options
        self._random = random.Random(1)
        self._bodies: dict[str, bytes] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._answer(head, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        o, draw = self._options, self._random.random()
        url = urlsplit(head.split(b" ", 2)[1].decode())
        if "list-type" in url.query:
            self._list(parse_qs(url.query).get("prefix", [""])[0], writer)
            return
        key = unquote(url.path).split("/", 2)[2]
        if draw < o.hang_share:
            await asyncio.sleep(3600)
        slow = draw < o.hang_share + o.slow_share
        await asyncio.sleep(o.slow_s if slow else o.delay)
        if o.hang_share + o.slow_share <= draw < o.hang_share + o.slow_share + o.error_share:
            writer.write(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n")
            return
        body = self._bodies.get(key)
        if body is None:
            path = self._root / key
            if not path.is_file():
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                return
            body = self._bodies[key] = path.read_bytes()
        tag = b'ETag: "1"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nAccept-Ranges: bytes\r\n'
        found = _RANGE.search(head)
        if found is None:
            writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (tag, len(body), body))
            return
        start, end = int(found[1]), min(int(found[2]) + 1, len(body))
        told = b"Content-Range: bytes %d-%d/%d\r\nContent-Length: %d" % (start, end - 1, len(body), end - start)
        writer.write(b"HTTP/1.1 206 Partial Content\r\n%b%b\r\n\r\n" % (tag, told))
        writer.write(memoryview(body)[start:end])


    def _list(self, prefix: str, writer: asyncio.StreamWriter) -> None:
        files = (path for path in self._root.rglob("*") if path.is_file())
        found = sorted((path.relative_to(self._root).as_posix(), path.stat().st_size) for path in files)
        rows = "".join(
            f"<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            "</Contents>"
            for key, size in found
            if key.startswith(prefix)
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def _main(options: argparse.Namespace) -> None:
    server = await asyncio.start_server(_Server(options).serve, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--slow-share", type=float, default=0.0)
    parser.add_argument("--slow-s", type=float, default=2.0)
    parser.add_argument("--hang-share", type=float, default=0.0)
    parser.add_argument("--error-share", type=float, default=0.0)
    asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
