"""Downloads are checked before they get their final name, and a stopped run continues; no network is used."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ecg_shock.data.fetch import ABANDONED_S, decode_212, fetch, header_content, verify
from ecg_shock.data.manifests import load_manifest


class Server(ThreadingHTTPServer):
    """A publisher on this machine that can be told to misbehave."""

    def __init__(self, content: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.cut_off: set[str] = set()
        self.redirects: dict[str, str] = {}
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}/db/"


class Handler(BaseHTTPRequestHandler):
    """Answer from the server's content, and log nothing."""

    server: Server

    def do_GET(self) -> None:
        """Send a file, a part of it, a redirection, or 404."""
        name = self.path.removeprefix("/db/")
        self.server.requests.append(name)
        if name in self.server.redirects:
            self.send_response(302)
            self.send_header("Location", self.server.redirects[name])
            self.end_headers()
        elif name in self.server.content:
            body = self.server.content[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if name in self.server.cut_off else body)
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


def pack_212(samples: list[int]) -> bytes:
    """Pack samples by arithmetic, independently of how they are decoded."""
    packed = b""
    for low, high in zip(samples[::2], samples[1::2], strict=True):
        a, b = low % 4096, high % 4096
        packed += bytes([a % 256, a // 256 + 16 * (b // 256), b % 256])
    return packed


SAMPLES = [0, -1, 2047, -2048, 1, -2, 255, 256, -255, -256] * 20
CONTENT = {
    "r1.hea": b"r1 1 250 4\n",
    "r1.atr": bytes(range(200)),
    "r1.dat": bytes(range(256)) * 300,
    "r2.hea": b"r2 1 250 200\n",
    "r2.dat": pack_212(SAMPLES),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve the files of the manifest."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server(dict(CONTENT)) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def manifest(tmp_path: Path, server: Server) -> Path:
    """Write a manifest of the files, one of them pinned by its samples."""
    lines = [
        'name = "tiny"\ntitle = "Tiny"\nversion = "1"\nlicence = "CC0"\ncitation = "Nobody, 2020."',
        f'url = "{server.url}"\n[files]',
    ]
    for name, content in CONTENT.items():
        digest = f'sha256 = "{hashlib.sha256(content).hexdigest()}"'
        if name == "r2.dat":
            digest = f'samples_sha256 = "{hashlib.sha256(np.array(SAMPLES, "<i2").tobytes()).hexdigest()}"'
        lines.append(f'"{name}" = {{ bytes = {len(content)}, {digest} }}')
    path = tmp_path / "tiny.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def files_in(folder: Path) -> dict[str, bytes]:
    """Read every file of a folder, hidden and temporary ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_fetch_gets_every_file_and_the_second_run_none(manifest: Path, server: Server, tmp_path: Path) -> None:
    """All files arrive, progress adds up to their size, and a second run requests nothing."""
    sizes: list[int] = []
    folder = fetch(manifest, tmp_path / "data", progress=sizes.append)
    assert folder == tmp_path / "data" / "tiny"
    assert files_in(folder) == CONTENT
    assert sum(sizes) == load_manifest(manifest).total_bytes == sum(map(len, CONTENT.values()))
    assert sorted(server.requests) == sorted(CONTENT)
    assert verify(manifest, tmp_path / "data") == ()

    server.requests.clear()
    fetch(manifest, tmp_path / "data", progress=sizes.append)
    assert server.requests == []
    assert sum(sizes) == 2 * sum(map(len, CONTENT.values()))


def test_fetch_writes_to_the_folder_of_the_environment(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a folder the files go to ECG_SHOCK_DATA."""
    monkeypatch.setenv("ECG_SHOCK_DATA", str(tmp_path / "elsewhere"))
    assert files_in(fetch(manifest)) == CONTENT
    assert verify(manifest) == ()
    assert (tmp_path / "elsewhere" / "tiny").is_dir()


@pytest.mark.parametrize("name", CONTENT)
def test_wrong_byte_is_refused(name: str, manifest: Path, server: Server, tmp_path: Path) -> None:
    """A file with one wrong bit, first, in the middle or last, does not replace the existing file."""
    right = CONTENT[name]
    folder = tmp_path / "data" / "tiny"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(b"old")
    for place in (0, len(right) // 2, len(right) - 1):
        server.content[name] = right[:place] + bytes([right[place] ^ 1]) + right[place + 1 :]
        with pytest.raises(ValueError, match=f"{name}: wrong digest; expected .*SHA-256 [0-9a-f]{{64}}, found .*again"):
            fetch(manifest, tmp_path / "data")
        left = files_in(folder)
        assert left.pop(name) == b"old"
        assert left.items() <= CONTENT.items()


@pytest.mark.parametrize("body", [b"", b"<html>busy</html>", CONTENT["r1.dat"] + b"\0"])
def test_wrong_size_is_refused(body: bytes, manifest: Path, server: Server, tmp_path: Path) -> None:
    """A web page instead of the file, or one byte too many, is refused."""
    server.content["r1.dat"] = body
    with pytest.raises(ValueError, match=rf"r1\.dat: wrong size; expected 76800 bytes, found {len(body)} bytes"):
        fetch(manifest, tmp_path / "data")
    assert files_in(tmp_path / "data" / "tiny").items() <= CONTENT.items()
    assert not (tmp_path / "data" / "tiny" / "r1.dat").exists()


def test_cut_off_download_is_refused_and_the_next_run_completes_it(
    manifest: Path, server: Server, tmp_path: Path
) -> None:
    """A connection that ends early leaves nothing behind, and the next run fetches only what is missing."""
    server.cut_off.add("r1.dat")
    with pytest.raises(OSError, match=r"could not fetch r1\.dat \(76800 bytes\).*run the same command again"):
        fetch(manifest, tmp_path / "data")
    folder = tmp_path / "data" / "tiny"
    left = files_in(folder)
    assert left.items() <= CONTENT.items()
    assert "r1.dat" not in left

    server.cut_off.clear()
    server.requests.clear()
    fetch(manifest, tmp_path / "data")
    assert files_in(folder) == CONTENT
    assert set(server.requests) == set(CONTENT) - set(left)


def test_file_that_the_server_lacks_is_an_error(manifest: Path, server: Server, tmp_path: Path) -> None:
    """A 404 names the file and the address, and nothing is written in its place."""
    del server.content["r1.atr"]
    with pytest.raises(OSError, match=r"could not fetch r1\.atr .*404"):
        fetch(manifest, tmp_path / "data")
    assert not (tmp_path / "data" / "tiny" / "r1.atr").exists()


def at_address(manifest: Path, server: Server, address: str) -> Path:
    """Write another address into the manifest."""
    manifest.write_text(manifest.read_text(encoding="utf-8").replace(server.url, address), encoding="utf-8")
    return manifest


def test_server_that_is_down_is_an_error(manifest: Path, server: Server, tmp_path: Path) -> None:
    """Without a server, there is an OSError that says what to do."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_port
    with pytest.raises(OSError, match="could not fetch .* check the connection"):
        fetch(at_address(manifest, server, f"http://127.0.0.1:{port}"), tmp_path / "data")
    assert files_in(tmp_path / "data" / "tiny") == {}


def test_killed_run_is_resumed(manifest: Path, server: Server, tmp_path: Path) -> None:
    """Right files are kept and wrong ones replaced; a temporary file is removed once it is a day old."""
    folder = tmp_path / "data" / "tiny"
    folder.mkdir(parents=True)
    (folder / "r1.hea").write_bytes(CONTENT["r1.hea"])
    (folder / "r1.dat").write_bytes(CONTENT["r1.dat"][:1000])
    abandoned, of_another_run = folder / ".r2.dat.0123.part", folder / ".r2.dat.4567.part"
    for leftover in (abandoned, of_another_run):
        leftover.write_bytes(b"half")
    long_ago = of_another_run.stat().st_mtime - 2 * ABANDONED_S
    os.utime(abandoned, (long_ago, long_ago))

    fetch(manifest, tmp_path / "data")
    assert files_in(folder) == {**CONTENT, of_another_run.name: b"half"}
    assert sorted(server.requests) == sorted(set(CONTENT) - {"r1.hea"})


def test_file_name_that_leaves_the_folder_is_refused_before_anything_is_asked(
    manifest: Path, server: Server, tmp_path: Path
) -> None:
    """A manifest with an unsafe name causes no folder and no request."""
    text = manifest.read_text(encoding="utf-8").replace('"r1.atr"', '"../r1.atr"')
    manifest.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="is not allowed as a name"):
        fetch(manifest, tmp_path / "data")
    assert server.requests == []
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "address",
    ["http://example.org/", "http://127.0.0.1.example.org/", "http://localhost@example.org/", "ftp://x/", "file:///"],
)
def test_only_https_leaves_this_machine(address: str, manifest: Path, server: Server, tmp_path: Path) -> None:
    """An address without encryption is refused unless it is this machine's, before a folder is made."""
    with pytest.raises(ValueError, match=r"is not allowed; give an https address"):
        fetch(at_address(manifest, server, address), tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_redirection_to_http_is_not_followed(manifest: Path, server: Server, tmp_path: Path) -> None:
    """A server can redirect the download only to an address that is allowed."""
    server.redirects["r1.dat"] = "http://example.invalid/r1.dat"
    with pytest.raises(ValueError, match=r"'http://example\.invalid/r1\.dat' is not allowed"):
        fetch(manifest, tmp_path / "data")
    assert not (tmp_path / "data" / "tiny" / "r1.dat").exists()

    server.content["moved.dat"] = CONTENT["r1.dat"]
    server.redirects["r1.dat"] = "moved.dat"
    assert files_in(fetch(manifest, tmp_path / "data")) == CONTENT


def test_manifest_without_address_is_an_error(manifest: Path, server: Server, tmp_path: Path) -> None:
    """A manifest of local recordings can be verified, not fetched."""
    manifest.write_text(manifest.read_text(encoding="utf-8").replace(server.url, ""), encoding="utf-8")
    with pytest.raises(ValueError, match=r"tiny\.toml has no url, so .*copy the files to .*tiny, and check them"):
        fetch(manifest, tmp_path / "data")


def test_verify_reports_what_is_wrong(manifest: Path, tmp_path: Path) -> None:
    """Missing, shortened and changed files or samples are told apart; other files are ignored."""
    folder = fetch(manifest, tmp_path / "data")
    (folder / "notes.txt").write_text("mine")
    (folder / "r1.hea").unlink()
    (folder / "r1.atr").write_bytes(CONTENT["r1.atr"][:-1])
    (folder / "r1.dat").write_bytes(CONTENT["r1.dat"][::-1])
    (folder / "r2.dat").write_bytes(pack_212([*SAMPLES[:-1], 7]))
    problems = verify(manifest, tmp_path / "data")
    assert [(problem.file, problem.state) for problem in problems] == [
        ("r1.hea", "missing"),
        ("r1.atr", "wrong size"),
        ("r1.dat", "wrong digest"),
        ("r2.dat", "wrong digest"),
    ]
    assert str(problems[1]) == "r1.atr: wrong size; expected 200 bytes, found 199 bytes"
    assert problems[2].found == hashlib.sha256(CONTENT["r1.dat"][::-1]).hexdigest()


def test_header_is_pinned_by_what_it_says(tmp_path: Path, server: Server) -> None:
    """Comments, spacing and spelling of numbers may differ; every field of a signal has to match.

    ``{name[:3]}`` in the address is the folder of a record.
    """
    ours = b"abc1 1 250 4\nabc1.dat 16 200.0(0)/mV 16 0 3 9 0 lead II\n"
    theirs = b"# made by wrsamp\r\nabc1 1 250.0 4\r\nabc1.dat  16 200 16 0 3 9 0 lead II\r\n#Age: 70\r\n"
    assert header_content(ours) == header_content(theirs) == b"1\t250\t4\nabc1.dat\t16\t200\t0\tmV\t9\tlead II"
    digest = hashlib.sha256(header_content(ours)).hexdigest()
    manifest = tmp_path / "tiny.toml"
    manifest.write_text(
        f'name = "tiny"\ntitle = ""\nversion = ""\nlicence = ""\ncitation = ""\nurl = "{server.url}{{name[:3]}}/"\n'
        f'[files]\n"abc1.hea" = {{ bytes = {len(ours)}, header_sha256 = "{digest}" }}\n'
    )
    server.content["abc/abc1.hea"] = theirs
    assert files_in(fetch(manifest, tmp_path / "data")) == {"abc1.hea": theirs}
    changes = ((b"250.0", b"500"), (b" 200 ", b" 100 "), (b" 9 0 ", b" 8 0 "), (b"lead II", b"lead I"), (b" 3 9", b""))
    for right, wrong in changes:
        (tmp_path / "data" / "tiny" / "abc1.hea").write_bytes(theirs.replace(right, wrong))
        assert [problem.state for problem in verify(manifest, tmp_path / "data")] == ["wrong digest"], wrong


def testdecode_212_undoes_packing(rng: np.random.Generator) -> None:
    """All 4096 values are decoded, as first and as second sample of a pair."""
    samples = np.concatenate([np.arange(-2048, 2048), rng.permutation(np.arange(-2048, 2048))])
    decoded = decode_212(pack_212(samples.tolist()))
    assert decoded.dtype == np.dtype("<i2")
    np.testing.assert_array_equal(decoded, samples)


@pytest.mark.recordings
def test_verify_finds_the_real_recordings_right(recordings_dir: Path) -> None:
    """The copy that the tests use is the one that the manifest of cudb describes."""
    assert verify("cudb", recordings_dir) == ()
