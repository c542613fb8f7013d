"""The command that serves the demo."""

import socket
import sys

import pytest

import ddpm.demo
from ddpm import UserError
from ddpm.cli.main import main
from ddpm.demo import server
from lazy import optional
from servers import free_port

optional("gradio")


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


def test_without_gradio_a_word(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("ddpm.demo.")]:
        monkeypatch.setattr(ddpm.demo, name.split(".")[2], sys.modules[name], raising=False)
        monkeypatch.delitem(sys.modules, name)  # all of it is read anew
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo"]) == 1
    assert 'pip install "ddpm-from-scratch[demo]"' in capsys.readouterr().err
