"""A bare HTTPS client on asyncio: one kept connection, never a repetition, every failure told apart.

A library that repeats a request after a lost connection would turn "unknown" into a wrong "refused".
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from dataclasses import dataclass
from typing import Any


class NotSent(Exception):
    """The request did not leave: nothing can have happened."""


class NoAnswer(Exception):
    """The request may have arrived; what became of it is unknown."""


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """Requests to one address, one after the other."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None, connect_timeout: float = 1.0):
        self.address, self.tls, self.connect_timeout = address, tls, connect_timeout
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(
        self,
        method: str,
        host: str,
        target: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        timeout: float = 10.0,
    ) -> Reply:
        reader, writer = await self._connected(host)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{k}: {v}" for k, v in (headers or {}).items())]
        if body is not None or method not in ("GET", "HEAD"):
            lines.append(f"Content-Length: {len(body or b'')}")
        try:
            async with asyncio.timeout(timeout):
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))
                await writer.drain()
                return await self._answer(reader)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError, TimeoutError) as error:
            self.close()
            raise NoAnswer(repr(error)) from error
        except BaseException:
            self.close()
            raise

    async def _connected(self, host: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams and (self._streams[0].at_eof() or self._streams[1].is_closing()):
            self.close()
        if not self._streams:
            name = host.partition(":")[0] if self.tls else None
            try:
                async with asyncio.timeout(self.connect_timeout):
                    self._streams = await asyncio.open_connection(*self.address, ssl=self.tls, server_hostname=name)
            except (OSError, EOFError, TimeoutError) as error:
                raise NotSent(repr(error)) from error
        return self._streams

    async def _answer(self, reader: asyncio.StreamReader) -> Reply:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ", 2)[1])
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while size := int((await reader.readline()).split(b";")[0], 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readline()
        elif "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        elif status in (204, 304):
            body = b""
        else:
            body = await reader.read()
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Reply(status, headers, body)

    def close(self) -> None:
        if self._streams:
            with contextlib.suppress(Exception):
                self._streams[1].transport.abort()
            self._streams = None


async def get_plain(address: tuple[str, int], path: str, timeout: float = 0.5) -> Reply | None:
    """One plain GET on a connection of its own; `None` when there is no answer."""
    connection = Connection(address, None, timeout)
    try:
        return await connection.request("GET", f"{address[0]}:{address[1]}", path, timeout=timeout)
    except (NotSent, NoAnswer):
        return None
    finally:
        connection.close()
