"""A server's settings contradict nothing, keys come from three places, and a client is counted fairly."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from glmkit.cli.main import build_app
from glmkit.errors import ConfigError, MissingDependencyError
from glmkit.serving.security import MOST_CLIENTS, Keys, RateLimit
from glmkit.serving.settings import ServingSettings, is_loopback, read_keys


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ConfigError) as error:
        ServingSettings(name="../etc", host="0.0.0.0", max_batch=0, timeout=0, api_keys=())
    for part in ("'../etc'", "'0.0.0.0' is reached", "max_batch=0", "timeout=0", "--open-to-all"):
        assert part in str(error.value)
    with pytest.raises(
        ConfigError, match="grace=nan must be at least 0; port=70000 must be at most"
    ):
        ServingSettings(port=70000, grace=float("nan"))
    with pytest.raises(ConfigError, match="ASCII"):
        ServingSettings(api_keys=("密钥",))
    assert ServingSettings(host="0.0.0.0", api_keys=("a",)).host == "0.0.0.0"
    assert ServingSettings(host="::", open_to_all=True).open_to_all
    names = {"127.0.0.1": True, "127.9.9.9": True, "::1": True, "[::1]": True, "localhost": True}
    names |= {"0.0.0.0": False, "::": False, "example.org": False, "localhost.example.org": False}
    assert {name: is_loopback(name) for name in names} == names


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "glmkit.serving.app", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    found = CliRunner().invoke(build_app(), ["serve"])
    assert isinstance(found.exception, MissingDependencyError)
    assert 'pip install "glmkit[serve]"' in str(found.exception)


def test_keys_come_from_arguments_a_file_and_the_environment(tmp_path: Path):
    file = tmp_path / "keys"
    file.write_text("# ours\nfrom-file  # of Ann\n\ngiven\n", encoding="utf-8")
    environment = {"GLMKIT_API_KEYS": "one, two,"}
    assert read_keys(["given"], file, environment) == ("given", "one", "two", "from-file")
    assert read_keys((), None, {}) == ()
    file.write_text("# none yet\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="has no key; write one a line"):
        read_keys((), file, {})
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys((), tmp_path / "absent", {})


def test_a_key_has_an_owner_and_nothing_else_has():
    keys = Keys(["first", "second"])
    assert keys
    assert not Keys([])
    assert keys.owner("Bearer first") != keys.owner("bearer second") is not None
    for wrong in (
        "",
        "first",
        "Bearer",
        "Bearer ",
        "Basic first",
        "Bearer first-",
        "Bearer \udcff",
    ):
        assert keys.owner(wrong) is None


def test_a_bucket_fills_again_and_clients_do_not_share_it():
    now = [0.0]
    limit = RateLimit(2, clock=lambda: now[0])
    assert [limit.wait("a") for _ in range(3)] == [0, 0, pytest.approx(30)]
    assert limit.wait("b") == 0
    now[0] = 29.0
    assert limit.wait("a") == pytest.approx(1)  # asking too early costs nothing
    now[0] = 30.0
    assert limit.wait("a") == 0
    for number in range(MOST_CLIENTS + 5):
        limit.wait(str(number))
    assert len(limit._buckets) == MOST_CLIENTS
    assert [RateLimit(0).wait("a") for _ in range(9)] == [0] * 9
