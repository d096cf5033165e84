"""Which files a place offers (PEP 503 and PEP 691), and their content, without pip.

pip would run the build of a source archive to learn its name. Only web addresses are opened, and files of this
machine where the place is one of its folders. No message names an address: it may be private, or hold a password.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import url2pathname

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.util import Retry

from raystudy.data.sources.places import Place, Unavailable

PAGE_LIMIT = 64 * 2**20
"""Bytes of a page that lists files; a project's largest are some megabytes."""

_JSON = "application/vnd.pypi.simple.v1+json"
_PAGES = f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_CHUNK_BYTES = 2**20
_NO_PAGE = (ValueError, TypeError, KeyError, AttributeError, AssertionError, RecursionError)  # as its parsers say it


class Offer(NamedTuple):
    """Where a file is to be had, and its digest as the page states it, if it does."""

    url: str
    sha256: str | None


class Shop:
    """Opens addresses as pip's settings say: proxy, certificates, timeout, retries; a context manager."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        try:
            self._seconds = float(settings.get("timeout") or settings.get("default-timeout") or 15)
            retries = int(settings.get("retries") or 5)
        except ValueError as error:
            raise Unavailable("pip's `timeout` and `retries` must be numbers") from error
        self._proxies = dict.fromkeys(("http", "https"), settings["proxy"]) if "proxy" in settings else None
        self._authorities = settings.get("cert") or True
        self._certificate = settings.get("client-cert")
        self._session = requests.Session()
        again = Retry(
            retries,
            backoff_factor=0.25,
            status_forcelist=(500, 502, 503, 504),
            raise_on_status=False,
            respect_retry_after_header=False,  # it may ask for hours
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=again))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def find(self, place: Place, project: str, filename: str) -> Offer:
        """The file called ``filename`` of ``project`` at this place. Raises Unavailable where it is not to be had."""
        url = place.url
        if place.is_index:
            url = f"{url.rstrip('/')}/{re.sub(r'[-_.]+', '-', project).lower()}/"
        if place.is_local and os.path.isdir(path := _path(url)):
            if not place.is_index:
                return Offer((path / filename).as_uri(), None)
            url = (path / "index.html").as_uri()
        with self.open(url, place, _PAGES) as (url, kind, chunks):
            page = b"".join(limited(chunks, PAGE_LIMIT))
        try:
            offers = _json_offers(page) if kind.startswith(_JSON) else _html_offers(page)
            for name, href, sha256 in offers:
                if name == filename:
                    return Offer(urljoin(url, href), sha256)
        except _NO_PAGE as error:
            raise Unavailable(f"its page cannot be read ({type(error).__name__})") from error
        raise Unavailable("it does not offer that file")

    @contextmanager
    def open(self, url: str, place: Place, accept: str = "*/*") -> Iterator[tuple[str, str, Iterator[bytes]]]:
        """The address in the end, the content's type, and the content in pieces; the place's password stays there.

        Raises Unavailable, also while the pieces are read.
        """
        scheme = urlsplit(url).scheme
        if scheme == "file" and place.is_local:
            if not os.path.isfile(_path(url)):
                raise Unavailable("it does not offer that file")
            try:
                file = _path(url).open("rb")
            except OSError as error:
                raise Unavailable(self._without_address(error)) from error
            with file:
                yield url, "text/html", iter(lambda: file.read(_CHUNK_BYTES), b"")
        elif scheme in ("http", "https"):
            headers = {"Accept": accept, "Accept-Encoding": "identity"}
            try:
                auth = None if self._session.should_strip_auth(place.url, url) else place.auth
                answer = self._session.get(
                    url,
                    headers=headers,
                    auth=auth,
                    stream=True,
                    timeout=self._seconds,
                    proxies=self._proxies,
                    verify=self._authorities,
                    cert=self._certificate,
                )
            except (OSError, ValueError) as error:
                raise Unavailable(self._without_address(error)) from error
            with answer:
                if answer.status_code != requests.codes.ok:
                    raise Unavailable(f"it answered with HTTP status {answer.status_code}")
                yield answer.url, answer.headers.get("Content-Type", ""), self._pieces(answer)
        else:
            raise Unavailable("it leads to what is neither a web address nor, from a folder, a file")

    def _pieces(self, answer: requests.Response) -> Iterator[bytes]:
        try:
            yield from answer.raw.stream(_CHUNK_BYTES, decode_content=False)  # a .tar.gz is to come as it is
        except (OSError, HTTPError) as error:
            raise Unavailable(self._without_address(error)) from error

    def _without_address(self, error: Exception) -> str:
        """What went wrong in our words: the library's own name the host, and may name a password."""
        kinds = {
            requests.exceptions.SSLError: "its certificate was not accepted; pip's setting `cert` can name another",
            requests.exceptions.ProxyError: "the proxy gave no connection",
            ProtocolError: "the connection broke off",
            requests.exceptions.ConnectionError: f"no connection, or no answer within {self._seconds:g} s",
        }
        what = next((words for kind, words in kinds.items() if isinstance(error, kind)), "it cannot be read")
        return f"{what} ({type(error).__name__})"


def limited(chunks: Iterator[bytes], limit_bytes: int) -> Iterator[bytes]:
    """The pieces as they come. Raises Unavailable once they are more than ``limit_bytes`` together."""
    received = 0
    for chunk in chunks:
        received += len(chunk)
        if received > limit_bytes:
            raise Unavailable(f"it sends more than {limit_bytes:,} bytes")
        yield chunk


def _json_offers(page: bytes) -> Iterator[tuple[str, str, str | None]]:
    """Name, address and digest of each file, as PEP 691 has them."""
    for file in json.loads(page)["files"]:
        yield file["filename"], file["url"], file["hashes"].get("sha256")


def _html_offers(page: bytes) -> Iterator[tuple[str, str, str | None]]:
    """Name, address and digest of each file, as PEP 503 has them."""
    links = _Links()
    links.feed(page.decode(errors="replace"))
    for href in links.hrefs:
        address = urljoin(links.base, href)
        digest = re.search(r"sha256=([0-9a-f]{64})", urlsplit(address).fragment)
        yield unquote(urlsplit(address).path.rpartition("/")[2]), address, digest[1] if digest else None


class _Links(HTMLParser):
    """Where a page's links lead to, and what they are relative to where it is not the page."""

    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []
        self.base = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if href := dict(attrs).get("href"):
            if tag == "a":
                self.hrefs.append(href.strip())
            elif tag == "base" and not self.base:
                self.base = href.strip()


def _path(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise Unavailable("it leads to a file of another machine")
    return Path(url2pathname(parts.path))
