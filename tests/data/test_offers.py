"""What places offer, from a server and folders of the test's own: pages of both kinds, passwords, limits, failures."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from raystudy.data.sources import offers
from raystudy.data.sources.offers import Offer, Shop, limited
from raystudy.data.sources.places import Place, Unavailable

FILENAME = "tiny_archive-1.0.tar.gz"
CONTENT = gzip.compress(b"an archive")
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SETTINGS = {"timeout": "5", "retries": "0"}
JSON = "application/vnd.pypi.simple.v1+json"


class Server(ThreadingHTTPServer):
    """Answers by path: (status, headers, content); keeps what it was asked with which headers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.address = f"127.0.0.1:{self.server_port}"

    def authorization(self, path: str) -> str | None:
        return next(headers for asked, headers in self.asked if asked == path).get("authorization")


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        status, headers, content = self.server.pages.get(self.path, (404, {}, b"no such page"))
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop(SETTINGS) as made:
        yield made


def html(href: str) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "text/html; charset=UTF-8"}, f'<a href="other">x</a><A HREF="{href}">y</A>'.encode()


def index(server: Server, user: str = "") -> Place:
    return Place.of("`index-url` 1", f"http://{user}{server.address}/simple/")


def content(shop: Shop, place: Place, url: str) -> bytes:
    with shop.open(url, place) as (_, _, chunks):
        return b"".join(chunks)


def test_an_html_page_names_the_file_its_address_and_its_digest(server: Server, shop: Shop) -> None:
    server.pages["/simple/tiny-archive/"] = html(f"../../files/{FILENAME}?a=1&amp;b=2#sha256={SHA256}")
    server.pages[f"/files/{FILENAME}?a=1&b=2"] = (200, {}, CONTENT)
    offer = shop.find(index(server), "Tiny._Archive", FILENAME)
    assert offer == Offer(f"http://{server.address}/files/{FILENAME}?a=1&b=2#sha256={SHA256}", SHA256)
    assert content(shop, index(server), offer.url) == CONTENT
    assert JSON in server.asked[0][1]["accept"]


def test_a_page_may_say_what_its_links_are_relative_to(server: Server, shop: Shop) -> None:
    status, headers, page = html(FILENAME)
    server.pages["/simple/tiny-archive/"] = (status, headers, b'<base href="/elsewhere/">' + page)
    offer = shop.find(index(server), "tiny-archive", FILENAME)
    assert offer == Offer(f"http://{server.address}/elsewhere/{FILENAME}", None)


def test_a_json_page_is_read_as_well(server: Server, shop: Shop) -> None:
    files = [
        {"filename": "other", "url": "x", "hashes": {}},
        {"filename": FILENAME, "url": f"../../files/{FILENAME}", "hashes": {"sha256": SHA256}},
    ]
    server.pages["/simple/tiny-archive/"] = (200, {"Content-Type": JSON}, json.dumps({"files": files}).encode())
    offer = shop.find(index(server), "tiny_archive", FILENAME)
    assert offer == Offer(f"http://{server.address}/files/{FILENAME}", SHA256)


PAGES = [b"", b"[]", b'{"files": 3}', b'{"files": [{}]}', b'{"files": [{"filename": 1}]}', b"[" * 100_000, b"\xff"]


@pytest.mark.parametrize("page", PAGES, ids=range(len(PAGES)))
def test_a_json_page_that_is_none_is_not_read(server: Server, shop: Shop, page: bytes) -> None:
    server.pages["/simple/tiny-archive/"] = (200, {"Content-Type": JSON}, page)
    with pytest.raises(Unavailable, match="its page cannot be read"):
        shop.find(index(server), "tiny_archive", FILENAME)


def test_an_archive_comes_as_it_is_also_where_the_server_calls_it_packed(server: Server, shop: Shop) -> None:
    server.pages["/file"] = (200, {"Content-Encoding": "gzip"}, CONTENT)
    assert content(shop, index(server), f"http://{server.address}/file") == CONTENT
    assert server.asked[0][1]["accept-encoding"] == "identity"


def test_a_page_of_links_and_its_redirect_are_followed(server: Server, shop: Shop) -> None:
    server.pages["/links.html"] = (302, {"Location": "/moved/links.html"}, b"")
    server.pages["/moved/links.html"] = html(FILENAME)
    place = Place.of("`find-links` 1", f"http://{server.address}/links.html")
    assert shop.find(place, "tiny_archive", FILENAME).url == f"http://{server.address}/moved/{FILENAME}"


def test_the_password_goes_to_the_index_only(server: Server, shop: Shop) -> None:
    """The same machine under another name is a foreign one."""
    place = index(server, "me:s%3Acret@")
    foreign = f"http://localhost:{server.server_port}"
    server.pages["/simple/tiny-archive/"] = html("/own")
    server.pages["/own"] = server.pages["/other"] = (200, {}, CONTENT)
    server.pages["/away"] = (302, {"Location": f"{foreign}/far"}, b"")
    server.pages["/far"] = (200, {}, CONTENT)
    shop.find(place, "tiny_archive", "own")
    for url in (f"http://{server.address}/own", f"{foreign}/other", f"http://{server.address}/away"):
        assert content(shop, place, url) == CONTENT
    basic = "Basic " + base64.b64encode(b"me:s:cret").decode()
    own = [server.authorization(path) for path in ("/simple/tiny-archive/", "/own", "/away")]
    assert own == [basic, basic, basic]
    assert server.authorization("/other") is None
    assert server.authorization("/far") is None


def test_a_password_in_netrc_is_used(
    server: Server, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.pages["/file"] = (200, {}, CONTENT)
    content(shop, index(server), f"http://{server.address}/file")
    assert server.authorization("/file") == "Basic " + base64.b64encode(b"me:secret").decode()


@pytest.mark.parametrize("way", ["environment", "setting"])
def test_a_proxy_is_used(server: Server, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    proxy = f"http://{server.address}"
    monkeypatch.setenv("http_proxy", proxy if way == "environment" else "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.pages["http://far.invalid/file"] = (200, {}, CONTENT)
    with Shop(SETTINGS | ({} if way == "environment" else {"proxy": proxy})) as shop:
        assert content(shop, Place.of("`index-url` 1", "http://far.invalid"), "http://far.invalid/file") == CONTENT


def test_a_folder_of_files_and_a_folder_of_pages_are_places(tmp_path: Path, shop: Shop) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / FILENAME).write_bytes(CONTENT)
    page = tmp_path / "simple" / "tiny-archive" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="../../files/{FILENAME}#sha256={SHA256}">{FILENAME}</a>')
    for setting, folder in (("`find-links` 1", tmp_path / "files"), ("`index-url` 1", tmp_path / "simple")):
        place = Place.of(setting, str(folder))
        offer = shop.find(place, "tiny_archive", FILENAME)
        assert content(shop, place, offer.url) == CONTENT
    page_of_links = Place.of("`find-links` 1", page.as_uri())
    assert shop.find(page_of_links, "tiny_archive", FILENAME).sha256 == SHA256


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("/nowhere", "it does not offer that file"),
        ("file://elsewhere/share", "a file of another machine"),
        ("ftp://host.example/simple", "neither a web address nor"),
        ("git+https://host.example/x", "neither a web address nor"),
        ("http://127.0.0.1:9", "no connection"),
        ("http://host..example:1", "cannot be read"),
    ],
)
def test_a_place_that_cannot_be_opened_says_so_without_its_address(shop: Shop, location: str, message: str) -> None:
    with pytest.raises(Unavailable, match=message) as error:
        shop.find(Place.of("`index-url` 1", location), "tiny_archive", FILENAME)
    for part in ("example", "127.0.0.1", "elsewhere", "nowhere"):
        assert part not in str(error.value)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, {}, b""), "HTTP status 401"),
        ((404, {}, b""), "HTTP status 404"),
        ((503, {}, b""), "HTTP status 503"),
        ((302, {"Location": "file:///etc/hostname"}, b""), "InvalidSchema"),
        ((302, {"Location": "/simple/tiny-archive/"}, b""), "TooManyRedirects"),
        ((200, {"Content-Length": "100"}, b"half"), "the connection broke off"),
        (html("another.tar.gz"), "it does not offer that file"),
        ((200, {"Content-Type": "text/html"}, b"\xff\x00<a href=\xfe>" * 9), "it does not offer that file"),
        ((200, {"Content-Type": "text/html"}, b'<a href="http://[::1">'), "its page cannot be read"),
        ((200, {"Content-Type": "text/html"}, b"<![x[y]]>"), "its page cannot be read|does not offer"),
    ],
)
def test_an_answer_without_the_file_says_why(
    server: Server, shop: Shop, answer: tuple[int, dict[str, str], bytes], message: str
) -> None:
    server.pages["/simple/tiny-archive/"] = answer
    with pytest.raises(Unavailable, match=message) as error:
        shop.find(index(server), "tiny_archive", FILENAME)
    assert "127.0.0.1" not in str(error.value)


def test_a_web_page_cannot_lead_to_a_file_of_this_machine(server: Server, shop: Shop, tmp_path: Path) -> None:
    (tmp_path / FILENAME).write_bytes(CONTENT)
    server.pages["/simple/tiny-archive/"] = html((tmp_path / FILENAME).as_uri())
    offer = shop.find(index(server), "tiny_archive", FILENAME)
    with pytest.raises(Unavailable, match="neither a web address nor, from a folder, a file"):
        content(shop, index(server), offer.url)


def test_a_silent_server_is_left_after_the_timeout() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as silent, Shop({"timeout": "0.2", "retries": "0"}) as shop:
        place = Place.of("`index-url` 1", f"http://127.0.0.1:{silent.server_port}/")
        with pytest.raises(Unavailable, match=r"no answer within 0.2 s"):
            content(shop, place, place.url)


def test_a_page_without_end_is_left(server: Server, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers, "PAGE_LIMIT", 1_000)
    server.pages["/simple/tiny-archive/"] = (200, {}, bytes(2_000))
    with pytest.raises(Unavailable, match="more than 1,000 bytes"):
        shop.find(index(server), "tiny_archive", FILENAME)


def test_pieces_are_passed_on_up_to_the_limit() -> None:
    pieces = limited(iter([b"12", b"34", b"5"]), 4)
    assert [next(pieces), next(pieces)] == [b"12", b"34"]
    with pytest.raises(Unavailable, match="more than 4 bytes"):
        next(pieces)


@pytest.mark.parametrize("settings", [{"timeout": "soon"}, {"retries": "many"}])
def test_settings_that_are_no_numbers_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(Unavailable, match="must be numbers"):
        Shop(settings)


def test_certificates_that_are_not_there_are_a_failure_not_a_traceback() -> None:
    with (
        Shop(SETTINGS | {"cert": "/no/such/bundle"}) as shop,
        pytest.raises(Unavailable, match="cannot be read") as error,
    ):
        content(shop, Place.of("`index-url` 1", "https://127.0.0.1:9/"), "https://127.0.0.1:9/x")
    assert urlsplit("https://127.0.0.1:9/").hostname not in str(error.value)
