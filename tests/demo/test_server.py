"""The command that serves the demo."""

import socket
import subprocess
import sys

import pytest

pytest.importorskip("gradio", reason="the demo needs gradio")

from ddpm import UserError
from ddpm.cli.main import main
from ddpm.demo import server
from servers import free_port, serving


def test_a_port_that_is_taken(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["demo", "--port", str(taken.getsockname()[1])]) == 1
    assert "try another --port" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_a_host_that_is_none(host, capsys):
    assert main(["demo", "mnist", "--host", host, "--port", str(free_port())]) == 1
    assert f"cannot listen at {host}" in capsys.readouterr().err


def test_a_password_keeps_others_out(tmp_path):
    """Also where a proxy that is not there is set for everything."""
    import httpx

    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy"), "http://127.0.0.1:9")
    with (
        serving(tmp_path, "mnist", "--password", "open sesame", **proxies) as (address, *_),
        httpx.Client(base_url=address, trust_env=False) as client,
    ):
        page = client.get("/")
        assert "images out of static" not in page.text
        asks = {"data": [], "fn_index": 0, "session_hash": "x"}
        for ask in (
            client.get("/config"),
            client.post("/gradio_api/queue/join", json=asks),
            client.get("/gradio_api/queue/data?session_hash=x"),
            client.post("/gradio_api/run/predict", json=asks),
            client.post("/login", data={"username": "ddpm", "password": "wrong"}),
        ):
            assert ask.status_code >= 400, ask.url
        right = {"username": "ddpm", "password": "open sesame"}
        assert client.post("/login", data=right).status_code == 200
        assert client.get("/config").status_code == 200


def test_a_checkpoint_that_is_not_there(capsys):
    assert main(["demo", "nowhere"]) == 1
    error = capsys.readouterr().err
    assert "there is no checkpoint at nowhere; name a run's folder" in error


def test_an_empty_password_is_refused(capsys):
    assert main(["demo", "--password", ""]) == 1
    assert "the password is empty" in capsys.readouterr().err


def test_the_warm_up_is_one_step(monkeypatch, capsys):
    def made(checkpoint, *, settings, device):
        raise UserError(f"asked for {settings.steps} step")

    monkeypatch.setattr(server, "generate", made)
    assert main(["demo"]) == 1
    assert "asked for 1 step" in capsys.readouterr().err


def test_without_gradio_a_word():
    code = (
        "import sys; sys.modules['gradio'] = None; from ddpm.cli.main import main; "
        "sys.exit(main(['demo']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'pip install "ddpm-from-scratch[demo]"' in done.stderr
