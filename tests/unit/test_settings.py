from pathlib import Path

import pytest

from world2vlm.errors import InvalidInputError
from world2vlm.settings import DEVELOPMENT_TOKEN, StudentSettings, TeacherSettings, TrainerSettings
from world2vlm.tls import ClientTls, ServerTls


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults_are_the_documented_ports() -> None:
    teacher, student, trainer = TeacherSettings.load(), StudentSettings.load(), TrainerSettings.load()
    assert (teacher.port, student.port) == (50051, 50052)
    assert (teacher.metrics_port, student.metrics_port, trainer.metrics_port) == (9101, 9102, 9103)
    assert (teacher.store, teacher.redis_url) == ("runs/store", None)


def test_arguments_win_over_environment_over_file(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_folder / "world2vlm.toml").write_text('student = "file"\nmax_queue = 5\nthreads = 3\n')
    monkeypatch.setenv("WORLD2VLM_MAX_QUEUE", "6")
    monkeypatch.setenv("WORLD2VLM_THREADS", "4")
    settings = TeacherSettings.load(threads=7)
    assert (settings.student, settings.max_queue, settings.threads) == ("file", 6, 7)


def test_a_process_reads_its_own_table_and_not_the_others(empty_folder: Path) -> None:
    (empty_folder / "world2vlm.toml").write_text("port = 1000\n[teacher]\nport = 1001\n[trainer]\nmax_workers = 9\n")
    assert (TeacherSettings.load().port, StudentSettings.load().port) == (1001, 1000)
    assert (TeacherSettings.load().max_workers, TrainerSettings.load().max_workers) == (2, 9)


def test_another_process_s_key_in_the_environment_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD2VLM_MIN_CLEARANCE_M", "0.5")
    assert StudentSettings.load().port == 50052
    assert TeacherSettings.load().min_clearance_m == 0.5


def test_an_unknown_key_in_the_environment_fails_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD2VLM_STOER", "x")
    with pytest.raises(InvalidInputError, match="WORLD2VLM_STOER"):
        TeacherSettings.load()


@pytest.mark.parametrize("text", ["stoer = 1", "[teacher]\nstoer = 1", "trainer = 1", "[techer]\nport = 1", "port ="])
def test_an_unknown_key_or_table_or_a_broken_file_fails(empty_folder: Path, text: str) -> None:
    (empty_folder / "world2vlm.toml").write_text(text)
    with pytest.raises(InvalidInputError):
        TeacherSettings.load()


@pytest.mark.parametrize(
    "values",
    [
        {"port": 70000},
        {"max_workers": 0},
        {"log_format": "xml"},
        {"tls_cert": "a.pem"},
        {"tls_client_ca": "a.pem"},
        {"tls_client_cert": "a.pem", "tls_ca": "a.pem"},
        {"tls_client_cert": "a.pem", "tls_client_key": "a.key"},
        {"student": "A/B"},
    ],
)
def test_a_bad_value_fails_by_name(values: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(values))):
        TeacherSettings.load(**values)


def test_the_development_token_opens_loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        assert StudentSettings.load(host=host).control_token.get_secret_value() == DEVELOPMENT_TOKEN
    with pytest.raises(InvalidInputError, match="CONTROL_TOKEN"):
        StudentSettings.load(host="0.0.0.0")
    monkeypatch.setenv("WORLD2VLM_CONTROL_TOKEN", "secret")
    assert "secret" not in StudentSettings.load(host="0.0.0.0").model_dump_json()


def test_tls_is_off_unless_it_is_set() -> None:
    assert (StudentSettings.load().server_tls, StudentSettings.load().client_tls) == (None, None)
    names = ("tls_cert", "tls_key", "tls_client_ca", "tls_ca", "tls_client_cert", "tls_client_key")
    settings = StudentSettings.load(**{name: f"{name}.pem" for name in names})
    assert settings.server_tls == ServerTls(Path("tls_cert.pem"), Path("tls_key.pem"), Path("tls_client_ca.pem"))
    assert settings.client_tls == ClientTls(Path("tls_ca.pem"), Path("tls_client_cert.pem"), Path("tls_client_key.pem"))


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError):
        TeacherSettings.load().port = 1
