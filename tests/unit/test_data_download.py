"""Fetching, against a server of our own on 127.0.0.1."""

import gzip
import hashlib
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType

import numpy as np
import pytest

from posterity import data
from posterity.data.download import fetch
from posterity.data.sets import IDX_FILES, SETS
from posterity.errors import CorruptFile, DataNotFound

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    files: dict[str, bytes]
    ranges: list[str | None]
    knows_ranges = True
    cut = 0  # bytes that are promised and not sent

    def do_GET(self):
        content, wanted = self.files.get(self.path), self.headers.get("Range")
        type(self).ranges.append(wanted)
        if content is None:
            return self.send_error(404)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.knows_ranges else 0
        if start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : len(content) - self.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    handler = type("Fresh", (Handler,), {"files": {"/file": CONTENT}, "ranges": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        handler.url = f"http://127.0.0.1:{found.server_port}/"
        yield handler
        found.shutdown()
        thread.join()


def test_a_file_arrives_whole_in_a_new_folder(server, tmp_path):
    fetch(server.url + "file", tmp_path / "new" / "file", SHA256)
    assert (tmp_path / "new" / "file").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_a_truncated_part_is_gone_on_with(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:100_000])
    fetch(server.url + "file", tmp_path / "file", SHA256)
    assert server.ranges == ["bytes=100000-"]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_it_all_again(server, tmp_path):
    server.knows_ranges = False
    (tmp_path / "file.part").write_bytes(CONTENT[:100_000])
    fetch(server.url + "file", tmp_path / "file", SHA256)
    assert server.ranges == ["bytes=100000-"]  # one transfer: the old beginning was dropped, not doubled
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"something else", CONTENT + b"!", CONTENT])
def test_a_part_that_is_wrong_too_long_or_whole_ends_well(server, tmp_path, part):
    (tmp_path / "file.part").write_bytes(part)
    fetch(server.url + "file", tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert not (tmp_path / "file.part").exists()


def test_a_wrong_checksum_is_refused_and_nothing_kept(server, tmp_path):
    server.files["/file"] = CONTENT[:-1] + b"?"
    with pytest.raises(CorruptFile, match=f"is not 'file'.*expected {SHA256}"):
        fetch(server.url + "file", tmp_path / "file", SHA256)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_connection_keeps_what_arrived(server, tmp_path):
    server.cut = 50_000
    with pytest.raises(DataNotFound, match="goes on from there"):
        fetch(server.url + "file", tmp_path / "file", SHA256)
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:-50_000]
    assert not (tmp_path / "file").exists()
    server.cut = 0
    fetch(server.url + "file", tmp_path / "file", SHA256)
    assert server.ranges[-1] == "bytes=250000-"
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_no_such_file_and_no_server(server, tmp_path):
    with pytest.raises(DataNotFound, match="404"):
        fetch(server.url + "nothing", tmp_path / "file", SHA256)
    with pytest.raises(DataNotFound, match="127.0.0.1:9/.*failed"):
        fetch("http://127.0.0.1:9/file", tmp_path / "file", SHA256)


def test_progress_goes_to_stderr_alone(server, tmp_path, capsys):
    fetch(server.url + "file", tmp_path / "file", SHA256, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "file" in err
    fetch(server.url + "file", tmp_path / "file", SHA256, progress=False)
    assert capsys.readouterr() == ("", "")


def test_load_fetches_what_is_nowhere_and_only_once(server, tmp_path, monkeypatch):
    for name in ("POSTERITY_DATA", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for file in IDX_FILES:
        shape = (12, 28, 28) if "images" in file else (12,)
        header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
        server.files[f"/{file}.gz"] = gzip.compress(header + bytes(range(10)) + bytes(np.prod(shape) - 10), mtime=0)
    sums = {file.removeprefix("/"): hashlib.sha256(content).hexdigest() for file, content in server.files.items()}
    del sums["file"]
    known = replace(SETS["mnist"], mirror=server.url, sha256=MappingProxyType(sums), sizes=(12, 12))
    monkeypatch.setitem(SETS, "mnist", known)
    found = data.load("mnist", download=True, options=data.Options(progress=False))
    assert found.train_targets.tolist() == [*range(10), 0, 0]
    assert (tmp_path / "cache/posterity/mnist/train-labels-idx1-ubyte.gz").exists()
    assert dict(found.source) == sums
    assert len(server.ranges) == 4
    data.load("mnist", download=True)
    assert len(server.ranges) == 4
    data.load("mnist", root=tmp_path / "mine", download=True)
    assert len(server.ranges) == 4  # found in the cache: nothing to fetch
