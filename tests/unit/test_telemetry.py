import json
import logging
import sys
from urllib.request import urlopen

import pytest

from world2vlm import telemetry
from world2vlm.errors import UnavailableError


def test_json_lines_carry_the_message_and_the_exception(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure_logging("json", "INFO")
    try:
        raise RuntimeError("inside")
    except RuntimeError:
        logging.getLogger("some.where").exception("it broke: %d", 3)
    logging.getLogger("some.where").debug("not shown")
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert (record["level"], record["logger"], record["message"]) == ("ERROR", "some.where", "it broke: 3")
    assert "RuntimeError: inside" in record["exception"]


def test_plain_lines_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure_logging()
    logging.getLogger("some.where").info("hello")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("INFO some.where: hello")


def test_progress_without_a_terminal_ends_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), telemetry.progress("rendering", 3) as advance:
        advance(1)
        advance(2)
    (message,) = caplog.messages
    assert message.startswith("rendering: 3 of 3 in ")


def test_progress_on_a_terminal_draws_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with telemetry.progress("rendering", 3) as advance:
        advance(3)
    assert "3/3" in capsys.readouterr().err


def test_metrics_are_served_unless_the_port_is_negative() -> None:
    assert telemetry.serve_metrics(-1) is None
    telemetry.REQUESTS.labels("/test/Method", "OK").inc()
    port = telemetry.serve_metrics(0)
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        assert 'world2vlm_requests_total{method="/test/Method",status="OK"} 1.0' in reply.read().decode()


def test_a_taken_metrics_port_is_named() -> None:
    port = telemetry.serve_metrics(0)
    assert port
    with pytest.raises(UnavailableError, match=rf"127\.0\.0\.1:{port} \(metrics_port\)"):
        telemetry.serve_metrics(port)
