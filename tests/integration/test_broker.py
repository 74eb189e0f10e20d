"""The embedded broker: a real Valkey server."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.round_kit import kill_broker, wait_for
from world2vlm.broker import EmbeddedBroker, broker_folder, open_broker, running_url
from world2vlm.errors import PreconditionError, UnavailableError

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]


def test_it_persists_never_evicts_and_wants_its_password(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "broker") as broker, redis.Redis.from_url(broker.url) as client:
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        port = client.connection_pool.connection_kwargs["port"]
        with redis.Redis(port=port) as stranger, pytest.raises(redis.exceptions.AuthenticationError):
            stranger.ping()
    assert stat.S_IMODE((tmp_path / "broker/url").stat().st_mode) == 0o600


def test_a_second_user_attaches_and_leaves_it_running(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    with EmbeddedBroker(folder) as first:
        with EmbeddedBroker(folder) as second:
            assert second.url == first.url
        assert running_url(folder) == first.url
    assert running_url(folder) is None


def test_what_was_queued_survives_a_stop_and_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    with EmbeddedBroker(folder) as broker, redis.Redis.from_url(broker.url) as client:
        client.lpush("light", "one")
        url = broker.url
        kill_broker(broker)
        wait_for(lambda: running_url(folder) == url, "it comes back at the same address")
        client.lpush("light", "two")
    with EmbeddedBroker(folder) as broker, redis.Redis.from_url(broker.url) as client:
        assert client.lrange("light", 0, -1) == [b"two", b"one"]


def test_a_server_whose_owner_died_is_adopted(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    code = "import os, sys; from pathlib import Path; from world2vlm.broker import EmbeddedBroker;"
    code += "EmbeddedBroker(Path(sys.argv[1])).start(); os.kill(os.getpid(), 9)"
    owner = subprocess.run([sys.executable, "-c", code, str(folder)], env=dict(os.environ, PYTHONPATH=str(ROOT)))
    assert owner.returncode == -signal.SIGKILL
    url = running_url(folder)
    assert url is not None
    with EmbeddedBroker(folder) as broker:
        assert broker.url == url
    assert running_url(folder) is None


def test_a_given_url_is_taken_as_it_is() -> None:
    with open_broker("redis://elsewhere:6379/0", "s3://bucket/store") as url:
        assert url == "redis://elsewhere:6379/0"


def test_a_store_elsewhere_needs_a_url() -> None:
    with pytest.raises(PreconditionError, match="WORLD2VLM_REDIS_URL"):
        broker_folder("s3://bucket/store")


def test_one_that_was_never_started_has_no_url(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        _ = EmbeddedBroker(tmp_path / "broker").url
