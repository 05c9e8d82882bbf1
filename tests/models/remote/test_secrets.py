"""The key of a server goes to that server alone: to no other host, and into no error, log, record or repr."""

from __future__ import annotations

import json
import logging
import pickle
import ssl
import subprocess
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llm_magics import Session, connect_model
from llm_magics.errors import LLMMagicsError, OptionError, ServerError
from llm_magics.messages import user
from llm_magics.models.base import Request
from llm_magics.models.remote.address import is_address, read_address
from llm_magics.models.remote.model import RemoteModel
from tests.models.remote.standin import RESET, Reply, StandIn, json_reply, says

KEY = "sk-lab-0123456789abcdef"
HELLO = Request((user("Hello?"),))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_KEY", KEY)


def connected(server: StandIn, **settings: Any) -> RemoteModel:
    return connect_model(server.url, api_key_env="LAB_KEY", **settings)


# --- addresses --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "base", "names"),
    [
        ("http://localhost:8080/v1", "http://localhost:8080/v1", ("localhost", "localhost:8080")),
        ("HTTPS://Api.Example.org/v1/", "https://api.example.org/v1", ("api.example.org", "api.example.org:443")),
        ("http://[::1]:1234/v1/chat/completions", "http://[::1]:1234/v1", ("::1", "[::1]:1234")),
        ("http://gpu-3.lab:80/a/models", "http://gpu-3.lab:80/a", ("gpu-3.lab", "gpu-3.lab:80")),
        ("http://host.example./v1", "http://host.example/v1", ("host.example", "host.example:80")),
    ],
)
def test_an_address_is_read(url: str, base: str, names: tuple[str, str]) -> None:
    assert is_address(url)
    address = read_address(url)
    assert (address.base, address.names) == (base, names)


def test_which_addresses_are_this_machine() -> None:
    urls = ("http://localhost/v1", "http://a.localhost/v1", "http://127.3.0.1/v1", "http://[::1]/v1", "http://10.0.0.1/v1")
    assert [read_address(url).loopback for url in urls] == [True, True, True, True, False]


@pytest.mark.parametrize(
    "url",
    [
        f"http://me:{KEY}@host/v1", f"https://{KEY}@host/v1", f"http://host/v1?api_key={KEY}", f"http://host/v1#{KEY}",
        f"http://host:{KEY}/v1", f"http://{KEY} host/v1", f"http://[{KEY}/v1", "http:///v1", "http://ho%2fst/v1",
    ],
)  # fmt: skip
def test_an_address_with_a_key_in_it_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(OptionError) as caught:
        connect_model(url)
    assert KEY not in str(caught.value)
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["https://huggingface.co/a/b/resolve/main/c.gguf", "https://lab.org/m.gguf", "smollm2-135m"])
def test_a_file_s_url_is_no_server(name: str) -> None:
    assert not is_address(name)


# --- the key ----------------------------------------------------------------------------------------------------------------


def test_the_key_is_read_at_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with StandIn([says("hi")]) as server, closing(connected(server)) as model:
        list(model.stream(HELLO))
        monkeypatch.setenv("LAB_KEY", "another-key")
        list(model.stream(HELLO))
        monkeypatch.delenv("LAB_KEY")
        with pytest.raises(OptionError, match="LAB_KEY holds no key"):
            list(model.stream(HELLO))
    assert [one.headers["authorization"] for one in server.seen] == [f"Bearer {KEY}", f"Bearer {KEY}", "Bearer another-key"]


@pytest.mark.parametrize("held", [f"{KEY}\nX-Injected: 1", f"{KEY} {KEY}", f"{KEY}é", " ", ""])
def test_a_key_that_cannot_be_sent_is_refused_without_repeating_it(held: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_KEY", held)
    with StandIn([says("hi")]) as server:
        with pytest.raises(OptionError) as caught:
            connected(server)
        assert server.seen == []
    assert KEY not in str(caught.value)


def test_a_key_in_the_place_of_its_variable_s_name_is_refused_without_repeating_it() -> None:
    with pytest.raises(OptionError, match="takes the name of an environment variable") as caught:
        connect_model("http://localhost:1/v1", api_key_env=KEY)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_takes_the_key_to_another_host(status: int) -> None:
    with StandIn([says("stolen")]) as thief:
        there = {"Location": f"http://localhost:{thief.port}/v1/chat/completions"}
        with StandIn([Reply(status=status, headers=there)]) as server:
            with closing(connected(server)) as model, pytest.raises(ServerError, match="redirects are not followed"):
                list(model.stream(HELLO))
            server.listing = Reply(status=status, headers=there)
            with pytest.raises(ServerError, match="redirects are not followed"):
                connected(server)
        assert thief.seen == []


def test_the_key_is_in_no_error_log_record_or_repr(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    script = [
        says("hi"),
        json_reply({"error": {"message": f"Incorrect API key provided: {KEY}."}}, 401),
        Reply([f"<p>No key {KEY}</p>".encode()], 403),
        Reply([b'data: {"error": {"message": "who is %s?"}}\n\n' % KEY.encode()]),
        Reply([KEY.encode()]),
        Reply([RESET]),
    ]
    shown: list[str] = []
    with StandIn(script) as server, closing(connected(server)) as model:
        session = Session(model, record=True)
        reply = session.ask("Hello?")
        shown += [repr(model), repr(session), json.dumps(reply.trace.to_json()), pickle.dumps(model.settings).decode("latin-1")]
        shown += [repr(vars(model)), str(model.rows)]
        for _ in script[1:]:
            with pytest.raises(LLMMagicsError) as caught:
                session.ask("And?")
            told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
            told.stack[:] = [frame for frame in told.stack if "tests" not in Path(frame.filename).parts]  # the test has the key
            shown += [str(caught.value), "".join(told.format()), json.dumps(session.reply.trace.to_json())]  # type: ignore[union-attr]
    assert len(shown) == 6 + 3 * 5
    assert all(one.headers["authorization"] == f"Bearer {KEY}" for one in server.seen)
    assert [text for text in [*shown, caplog.text] if KEY in text] == []


# --- TLS --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that nobody trusts, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    made = folder / "cert.pem", folder / "key.pem"
    line = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-out", str(made[0]), "-keyout", str(made[1])]
    subprocess.run([*line, *names], check=True, capture_output=True)
    return made


def test_a_certificate_that_nobody_trusts_is_refused_before_the_key_is_sent(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    with StandIn([says("hi")], tls=tls) as server:
        url = f"https://localhost:{server.port}/v1"
        with pytest.raises(ServerError, match=r"certificate of localhost:\d+ cannot be verified.*SSL_CERT_FILE"):
            connect_model(url, api_key_env="LAB_KEY")
        assert server.seen == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        with closing(connect_model(url, api_key_env="LAB_KEY")) as model:
            assert Session(model).ask("Hello?").text == "hi"
        with pytest.raises(ServerError, match="cannot be verified"):  # trusted, but not for this name
            connect_model(f"https://127.0.0.1:{server.port}/v1", api_key_env="LAB_KEY")
