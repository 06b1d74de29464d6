import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import unmix as um

CONTENT = b"counts of a tissue" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    """A server on this machine that counts its requests; yields its address and the counter."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *args):
            pass

    monkeypatch.setenv("NO_PROXY", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/tissue.h5ad", requests
        httpd.shutdown()
        thread.join()


def test_a_file_is_downloaded_once(server, tmp_path):
    url, requests = server
    path = um.datasets.fetch(url, SHA256, cache=tmp_path)
    assert path.read_bytes() == CONTENT
    assert um.datasets.fetch(url, SHA256.upper(), cache=str(tmp_path)) == path
    assert len(requests) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_what_an_address_asks_for_is_no_part_of_the_name(server, tmp_path):
    """As Zenodo's addresses end; with it, the ending would no longer say what the file is."""
    path = um.datasets.fetch(f"{server[0]}?download=1", SHA256, cache=tmp_path)
    assert path.name == f"{SHA256[:12]}-tissue.h5ad"


def test_a_damaged_file_is_replaced(server, tmp_path):
    url, requests = server
    path = um.datasets.fetch(url, SHA256, cache=tmp_path)
    path.write_bytes(b"damaged")
    assert um.datasets.fetch(url, SHA256, cache=tmp_path).read_bytes() == CONTENT
    assert len(requests) == 2


def test_another_content_leaves_nothing_behind(server, tmp_path):
    with pytest.raises(ValueError, match="hash"):
        um.datasets.fetch(server[0], "0" * 64, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_checksum_no_download(server, tmp_path):
    for sha256 in (None, "md5:123", SHA256[:-1]):
        with pytest.raises(ValueError, match="`sha256` must be the 64 hexadecimal digits"):
            um.datasets.fetch(server[0], sha256, cache=tmp_path)
    with pytest.raises(ValueError, match="neither an address nor one of"):
        um.datasets.fetch("visium_moon", cache=tmp_path)
    assert server[1] == []


def test_registry_is_complete():
    for url, sha256 in um.datasets.REGISTRY.values():
        assert url.startswith("https://")
        assert len(bytes.fromhex(sha256)) == 32
