"""What would stand on the hub, in a folder."""

import base64
import json
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from PIL import Image

from ddpm import load
from ddpm.checkpoint.checkpoint import build_net, save
from ddpm.checkpoint.diffusers import read_diffusers
from ddpm.cli.main import main
from ddpm.evaluation.report import Protocol, Report

hub = pytest.importorskip("huggingface_hub")


def score(network, path):
    how = {"network": network, "sampler": "ddim", "steps": 2, "seed": 0}
    protocol = Protocol(100, "cifar-net 1234", "cifar10 train 9f", how)
    Report(12.5, 1.25, 100, 0.5, protocol).save(path)
    return path


@pytest.fixture
def run(tiny, tmp_path):
    config = replace(tiny, unet=replace(tiny.unet, patch=2, attention=()))
    secret = tmp_path / "secret-folder" / "photos.npz"
    net = build_net(config, data := load("mnist").data)
    data = replace(data, source=str(secret), classes=("a`b", "c\nd", *data.classes[2:]))
    config = replace(config, data=str(secret), root=str(secret.parent))
    save(tmp_path / "x.safetensors", net, config, data, 7, 70)
    return tmp_path / "x.safetensors"


def test_a_folder_with_all_that_a_stranger_needs(run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    a = score(load(run).weights_hash(), tmp_path / "a.json")
    words = ["publish", str(run), "me/faces", "--dry-run", str(out), "--scores", str(a)]
    words += ["--license", "cc-by-nc-4.0", "--data-license", "mine, for all", "--device", "cpu"]
    assert main(words) == 0
    card = hub.ModelCard.load(out / "README.md")
    about = card.data.to_dict()
    assert about["license"] == "cc-by-nc-4.0"
    assert about["pipeline_tag"] == "unconditional-image-generation"
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("frechet-distance", 12.5)
    for said in (
        "60,000 images of `photos.npz` of 10 classes", "`a'b`, `c\\nd`, `2`", "7 steps, 70 images",
        "[unet]", "[sample]", "Fréchet distance   12.5000", "cifar-net 1234; cifar10 train 9f",
        "sampler ddim, steps 2", "Weights: cc-by-nc-4.0", "Data: mine, for all",
        "trust_remote_code=True", "hf download me/faces", "samples.png",
    ):  # fmt: skip
        assert said in card.text, said
    for path in out.rglob("*"):
        assert not path.is_file() or b"secret-folder" not in path.read_bytes(), path
    assert load(out / "model.safetensors").weights_hash() == load(run).weights_hash()
    assert read_diffusers(out).weights_hash() == load(run).weights_hash()
    assert (out / "config.toml").is_file()
    assert json.loads((out / "score-1.json").read_text())["distance"] == 12.5
    assert json.loads((out / "model_index.json").read_text())["unet"] == ["ddpm_unet", "DDPMUNet"]
    read = []
    monkeypatch.setattr("ddpm.checkpoint.onnx.write_onnx", lambda c, path: read.append(c))
    assert main(["convert", str(out), str(tmp_path / "x.onnx")]) == 0  # of model.safetensors
    assert [c.weights_hash() for c in read] == [load(run).weights_hash()]
    assert Image.open(out / "samples.png").size[0] > 8 * 28
    capsys.readouterr()
    assert main(words) == 1
    assert "is there already" in capsys.readouterr().err


def test_nothing_is_claimed_that_was_not_said(run, tmp_path):
    out = tmp_path / "out"
    words = ["publish", str(run), "me/faces", "--dry-run", str(out), "--device", "cpu"]
    assert main(words) == 0
    card = hub.ModelCard.load(out / "README.md")
    assert card.data.license == "unknown"
    assert "None were measured." in card.text
    assert card.text.count("not stated") == 2


def test_what_is_refused_before_anything_is_made(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    out, other = str(tmp_path / "out"), str(score("0123456789abcdef", tmp_path / "b.json"))
    for words, says in (
        ([str(run), "faces", "--dry-run", out], "faces is not an OWNER/NAME"),
        ([str(run), "me/--x..y", "--dry-run", out], "the hub allows no such name"),
        ([str(run), "me/faces", "--dry-run", out, "--scores", other], "is not of these weights"),
        (["nowhere", "me/faces", "--dry-run", out], "there is no checkpoint at nowhere"),
        ([str(run), "me/faces"], "log in by hf auth login"),
    ):
        assert main(["publish", *words]) == 1
        assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@contextmanager
def a_hub(monkeypatch, there=()):
    """A server on this machine that takes repositories as the hub does, and keeps their files."""
    kept, names = {}, set(there)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def answer(self, value, status=200):
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            if "/tree/" in self.path:
                files = [{"type": "file", "path": name, "size": 1, "oid": "1"} for name in kept]
                return self.answer(files)
            about = {"siblings": [], "id": "me/faces", "sha": "0" * 40, "private": False}
            return self.answer(about)

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/api/repos/create":
                name = "me/" + json.loads(body)["name"]
                url = f"{address}/{name}"
                taken = name in names
                names.add(name)
                return self.answer({"url": url, "error": "taken"}, 409 if taken else 200)
            if self.path == "/api/validate-yaml":
                error = {"message": '"license" must be one of [mit, …]'}
                errors = [error] * ("my own" in json.loads(body)["content"])
                return self.answer({"errors": errors, "warnings": []}, 400 if errors else 200)
            if "/preupload/" in self.path:
                files = json.loads(body)["files"]
                return self.answer(
                    {
                        "files": [
                            {
                                "path": f["path"],
                                "uploadMode": "regular",
                                "shouldIgnore": False,
                                "oid": None,
                            }
                            for f in files
                        ]
                    }
                )
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "deletedFile":
                    del kept[line["value"]["path"]]
                if line["key"] == "file":
                    kept[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self.answer(
                {
                    "commitUrl": f"{address}/me/faces/commit/1",
                    "commitOid": "1",
                    "success": True,
                    "hookOutput": "",
                }
            )

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_of_this_test")
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()


def test_all_of_it_is_uploaded(run, tmp_path, capsys, monkeypatch):
    words = ["publish", str(run), "me/faces", "--device", "cpu"]
    with a_hub(monkeypatch) as kept:
        assert main(words) == 0
        assert "/me/faces: Checkpoint(photos.npz" in capsys.readouterr().out
        assert main([*words, "--dry-run", str(tmp_path / "out")]) == 0
        files = {p for p in (tmp_path / "out").rglob("*") if p.is_file()}
        written = {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in files}
        sizes = {name: len(data) for name, data in written.items()}
        assert {name: len(data) for name, data in kept.items()} == sizes
        # Of two keys of metadata, which diffusers' format has, safetensors writes any one first.
        same = [name for name in written if not name.startswith("unet/diffusion")]
        assert all(kept[name] == written[name] for name in same)
        assert main(words) == 1
        assert "me/faces is on the hub already" in capsys.readouterr().err
        kept["score-2.json"] = b"of the weights before"
        assert main([*words, "--overwrite"]) == 0
        assert "score-2.json" not in kept
        assert main([*words, "--overwrite", "--private"]) == 1
        assert "me/faces is there already, and public" in capsys.readouterr().err


def test_a_hub_out_of_reach_is_said(run, capsys, monkeypatch):
    with a_hub(monkeypatch):
        pass  # its server is gone again
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_of_this_test")
    assert main(["publish", str(run), "me/faces", "--device", "cpu"]) == 1
    assert "the hub cannot be reached" in capsys.readouterr().err


def test_a_licence_that_the_hub_does_not_know_is_said_before_there_is_anything(
    run, capsys, monkeypatch
):
    words = ["publish", str(run), "me/faces", "--device", "cpu", "--license"]
    with a_hub(monkeypatch) as kept:
        assert main([*words, "my own"]) == 1
        assert '"license" must be one of' in capsys.readouterr().err
        assert main([*words, "MIT"]) == 0  # nothing was made before
        assert b"license: mit" in kept["README.md"]
