"""onnxruntime-web: from npm once, from a folder or a .tgz, and never other than it was."""

import io
import os
import sys
import tarfile

import pytest

from ddpm.demo import runtime
from ddpm.demo.runtime import SCRIPT, VERSION, WASM, read_runtime
from ddpm.utils.errors import UserError

FILES = {
    "package.json": b'{"name": "onnxruntime-web", "version": "9.9"}', SCRIPT: b"script",
    WASM: b"wasm",
}  # fmt: skip


def package(path, files=FILES):
    with tarfile.open(path, "w:gz") as out:
        for name, data in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def npm(tmp_path, monkeypatch, lines):
    """Puts a program called npm on the path, and nothing else; it is run in a folder of its own."""
    if os.name == "nt":
        pytest.skip("a script with a first line for its interpreter is one of POSIX")
    path = tmp_path / "bin" / "npm"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\nimport sys\n{lines}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent))


def test_a_folder_and_an_archive_are_the_same(tmp_path):
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    unpacked = read_runtime(tmp_path)
    assert unpacked == read_runtime(package(tmp_path / "x.tgz"))
    assert (unpacked.version, unpacked.script, unpacked.wasm) == ("9.9", b"script", b"wasm")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({**FILES, "package.json": b'{"name": "left-pad"}'}, "is the package left-pad"),
        ({**FILES, "package.json": b"[]"}, "is not the whole package"),
        ({SCRIPT: b"script"}, "is not the whole package"),
        ({k: v for k, v in FILES.items() if k != WASM}, "is not the whole package"),
    ],
)
def test_another_package_is_refused(tmp_path, files, said):
    with pytest.raises(UserError, match=said):
        read_runtime(package(tmp_path / "x.tgz", files))


def test_what_is_no_package_is_refused(tmp_path):
    (tmp_path / "x.tgz").write_bytes(b"nothing")
    for path, said in (
        (tmp_path / "x.tgz", "is not an npm package"),
        (tmp_path / "y", "there is no"),
    ):
        with pytest.raises(UserError, match=said):
            read_runtime(path)


def test_without_npm_it_is_said_what_to_do(cache, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="npm is not installed: give it by --runtime"):
        read_runtime()
    assert not cache.exists()


def test_npm_fetches_it_once(tmp_path, cache, monkeypatch):
    made = package(tmp_path / "made.tgz")
    monkeypatch.setattr(runtime, "INTEGRITY", integrity(made))
    name = f"onnxruntime-web-{VERSION}.tgz"
    npm(tmp_path, monkeypatch, f"import shutil\nshutil.copy({str(made)!r}, {name!r})")
    assert read_runtime().wasm == b"wasm"
    assert [path.name for path in cache.iterdir()] == [name]
    monkeypatch.setenv("PATH", "")
    assert read_runtime().wasm == b"wasm"  # from the cache
    (cache / name).write_bytes(b"damaged")
    with pytest.raises(UserError, match="npm is not installed"):
        read_runtime()


def integrity(path):
    import base64
    import hashlib

    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (f"open('onnxruntime-web-{VERSION}.tgz', 'w').write('x')", "is not onnxruntime-web"),
        ("sys.exit('npm error ENOTFOUND')", "cannot fetch .*npm error ENOTFOUND"),
        ("", "is not onnxruntime-web"),
    ],
)
def test_what_npm_does_wrong_is_not_kept(tmp_path, cache, monkeypatch, lines, said):
    npm(tmp_path, monkeypatch, lines)
    with pytest.raises(UserError, match=said):
        read_runtime()
    assert not cache.exists()
