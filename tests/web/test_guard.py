"""Who may ask: host names, other sites' pages, the token."""

import socket

import pytest
from starlette.datastructures import Headers

from ames.errors import AmesError
from ames.web.guard import HEADERS, Access, access_to
from ames.web.server import address_line, token_for
from helpers import serving

TOKEN = "a-token-of-24-characters"


@pytest.fixture(scope="module")
def locked(shared):
    """A client without a token of a server that wants one."""
    with serving.client(shared, token=TOKEN) as made:
        yield made


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8008", "localhost:9000", "LOCALHOST", "[::1]:8008"])
def test_hosts_that_are_served(site, host):
    assert site.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "",
        "192.168.1.9",
        "localhost:8008@evil",
        "a b",
        "[::1",
        "x" * 9000,
    ],
)
def test_hosts_that_are_not(site, host):
    for place in ("/", "/health", "/api/about", "/serve.js"):
        answer = site.get(place, headers={"host": host})
        assert answer.status_code == 421
        assert answer.json() == {"error": "this server does not serve that host name"}


def test_two_hosts_are_none(site):
    answer = site.get("/health", headers=[("host", "127.0.0.1"), ("host", "evil.example")])
    assert answer.status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "other", "origin": serving.ADDRESS},
    ],
)
def test_other_pages_may_not_ask(site, headers):
    for method, place in (
        ("POST", "/api/search"),
        ("POST", "/api/preview"),
        ("GET", "/api/photos"),
        ("POST", "/"),
    ):
        answer = site.request(method, place, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (403, "requests of other pages are refused")
    assert site.get("/", headers=headers).status_code == 200  # a link to the page is no request of a page


@pytest.mark.parametrize(
    "headers",
    [{}, {"origin": serving.ADDRESS}, {"sec-fetch-site": "same-origin", "origin": "https://proxy.example"}],
)
def test_its_own_page_and_programs_may(site, headers):
    assert site.post("/api/search?top=1", headers=headers, content=serving.query()).status_code == 200


def test_every_answer_has_the_headers(site):
    for answer in (
        site.get("/"),
        site.get("/api/photos"),
        site.get("/nothing"),
        site.get("/", headers={"host": "evil.example"}),
        site.post("/api/search", content=b"text"),
    ):
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] in ("no-store", "no-cache")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"cookie": "ames_token_8008="},
        {"cookie": f"ames_token_8008={TOKEN}"},  # the cookie is another text
        {"cookie": "ames_token_8008=é".encode()},
        {"authorization": "Bearer wrong"},
        {"authorization": TOKEN},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": "Bearer \xff".encode("latin-1")},
    ],
)
def test_without_the_token_nothing_is_served(locked, headers):
    for place in (
        "/",
        "/?token=wrong",
        f"/?token={TOKEN}&token=x",
        "/serve.js",
        "/api/about",
        f"/api/about?token={TOKEN}",
    ):
        answer = locked.get(place, headers=headers)
        assert (answer.status_code, list(answer.json())) == (401, ["error"])
    assert locked.get("/health").json() == {"status": "ok"}


def test_the_token_becomes_a_cookie(locked):
    answer = locked.get(f"/?token={TOKEN}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "./")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert TOKEN not in cookie
    pair = {"cookie": cookie.partition(";")[0]}
    assert locked.get("/api/about", headers=pair).json()["photos"] == 9
    locked.cookies.clear()


def test_a_program_sends_the_token_as_a_bearer(locked):
    assert locked.get("/api/about", headers={"authorization": f"Bearer {TOKEN}"}).json()["photos"] == 9


def test_the_cookie_does_not_open_another_server():
    one, other = (Access(frozenset(), token=TOKEN + end) for end in ("1", "2"))
    sent = Headers({"cookie": f"x=1; ames_token={one.cookie_value()}"})
    assert one.admits(sent)
    assert not other.admits(sent)


def test_a_server_of_all_addresses_is_served_by_address_and_own_name():
    access = access_to("0.0.0.0", "0.0.0.0", 8008, TOKEN)
    assert all(access.serves(host) for host in ("10.0.0.7:8008", "[fe80::1]:8008", "localhost"))
    assert not access.serves("evil.example")
    access = access_to("box.lan", "10.0.0.7", 8008, TOKEN)
    assert access.serves("box.lan:8008")
    assert access.serves("10.0.0.7")
    assert not access.serves("10.0.0.8")
    assert not access.serves("localhost")


def test_where_a_token_is_needed(monkeypatch):
    monkeypatch.delenv("AMES_TOKEN", raising=False)
    assert token_for("127.0.0.1") is None
    assert token_for("::1") is None
    new = token_for("0.0.0.0")
    assert len(new) >= 32
    assert new != token_for("0.0.0.0")
    assert address_line("0.0.0.0", 80, new) == f"http://{socket.gethostname()}:80/?token={new}"
    assert address_line("::1", 80, None) == "http://[::1]:80/"
    monkeypatch.setenv("AMES_TOKEN", TOKEN)
    assert token_for("127.0.0.1") == TOKEN
    assert address_line("10.0.0.7", 80, TOKEN) == "http://10.0.0.7:80/"  # who gave it knows it
    for wrong in ("short", "with spaces in the middle", "ünïcode-characters-here"):
        monkeypatch.setenv("AMES_TOKEN", wrong)
        with pytest.raises(AmesError, match="AMES_TOKEN: give at least 16 printable"):
            token_for("127.0.0.1")
