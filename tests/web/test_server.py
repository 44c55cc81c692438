"""A server in its own process: what it prints, how it ends, many requests at once, and its memory."""

import asyncio
import json
import signal
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from helpers import serving

GROWTH = 24 << 20  # bytes that a server may take more after 2,000 requests than after 200


async def asked(address, method="GET", place="/health", body=b"", headers=""):
    """The status, the headers and the body of an answer, by a connection of its own."""
    where = urlsplit(address)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    words = f"{method} {place} HTTP/1.1\r\nHost: {where.netloc}\r\nConnection: close\r\n{headers}"
    writer.write(f"{words}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode().lower(), content


def ask(*words, **more):
    return asyncio.run(asked(*words, **more))


def resident(pid):
    """Bytes of memory that a process has."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) << 10


@pytest.fixture(scope="module")
def running(shared):
    with serving.server(shared, "--queue", "16") as made:
        yield made


def test_two_hundred_at_once_are_answered_or_refused(running):
    _, address = running
    assert address.startswith("http://127.0.0.1:")

    async def everyone():
        search = (asked(address, "POST", "/api/search?top=1", serving.query(i % 8)) for i in range(200))
        return await asyncio.gather(*search)

    found = asyncio.run(everyone())
    for number, (status, head, content) in enumerate(found):
        if status == 200:
            assert json.loads(content)["hits"][0]["name"] == f"a/{number % 8}.png"
        else:
            assert status == 503
            assert "retry-after: " in head
            assert json.loads(content) == {"error": "the server is busy; try again in a moment"}
    assert sum(status == 200 for status, *_ in found) >= 16
    assert ask(address, "POST", "/api/search?top=1", body=serving.query())[0] == 200


def test_nothing_says_what_serves(running):
    head = ask(running[1])[1]
    assert "server:" not in head
    assert "uvicorn" not in head


def test_requests_that_are_none(running):
    _, address = running
    where = urlsplit(address)
    for sent in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"G" * 100_000):
        with socket.create_connection((where.hostname, where.port), timeout=10) as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                assert client.recv(1000).split()[1:2] in ([b"400"], [b"421"], [])
    assert ask(address)[0] == 200


def test_what_is_too_large_is_refused_before_it_is_sent(running):
    where = urlsplit(running[1])
    with socket.create_connection((where.hostname, where.port), timeout=10) as client:
        client.sendall(b"POST /api/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99000000\r\n\r\nab")
        head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")  # to the end: it is closed
    assert head.split()[1] == b"413"
    assert json.loads(body) == {"error": "the photo is larger than 32 MB"}


def test_a_client_that_leaves_takes_no_place(running):
    _, address = running
    where = urlsplit(address)
    for _ in range(40):  # more than the queue holds
        with socket.create_connection((where.hostname, where.port), timeout=10) as client:
            client.sendall(
                b"POST /api/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900000\r\n\r\nab"
            )
    serving.wait_until(lambda: ask(address, "POST", "/api/search", body=serving.query())[0] == 200)


def test_an_interruption_ends_it_like_any_command(shared):
    with serving.server(shared) as (process, address):
        assert ask(address)[0] == 200
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=20)[1]
    assert (process.returncode, said.splitlines()) == (130, ["ames serve: interrupted"])


def test_other_machines_need_a_token_that_is_printed_once(shared):
    with serving.server(shared, "--host", "0.0.0.0") as (process, address):
        where = urlsplit(address)
        here = f"http://127.0.0.1:{where.port}/"
        assert ask(here, place="/api/about")[0] == 401
        token = where.query.removeprefix("token=")
        assert ask(here, place="/api/about", headers=f"Authorization: Bearer {token}\r\n")[0] == 200
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "ames serve: stopped\n")


@pytest.mark.slow
def test_memory_stays_flat(running, shared):
    process, address = running
    pages = ["/api/photos", "/api/about", "/", "/serve.js"]
    thumbnails = [
        f"/api/photos/{photo['id']}/thumbnail"
        for photo in json.loads(ask(address, place="/api/photos")[2])["photos"]
    ]

    async def many(count):
        for number in range(count):
            status, *_ = await asked(address, "POST", "/api/search", serving.query(number % 8, number % 5))
            assert status == 200
            for place in (pages[number % 4], thumbnails[number % len(thumbnails)]):
                assert (await asked(address, place=place))[0] == 200

    asyncio.run(many(200))
    before = resident(process.pid)
    asyncio.run(many(2000))
    grown = resident(process.pid) - before
    print(f"{before >> 20} MB after 200 searches, {grown / 2**20:+.1f} MB after 2,000 more")
    assert grown < GROWTH
