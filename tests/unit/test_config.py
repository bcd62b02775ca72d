from pathlib import Path

import pytest

from core.errors import InvalidArgument
from core.settings import Settings
from sheafdb import settings_page
from sheafdb.config import Configuration, Given, declared, from_flag, load

ROOT = Path(__file__).parents[2]


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sheafdb.yaml"
    path.write_text(text)
    return path


def refused(file: Path | None = None, environ: dict[str, str] | None = None, *flags: str) -> str:
    with pytest.raises(InvalidArgument) as e:
        load(file, environ or {}, map(from_flag, flags))
    message = str(e.value)
    assert "\n" not in message
    return message


def value(configuration: Configuration, name: str) -> tuple[object, str]:
    return next((v, origin) for n, v, origin in configuration.rows() if n == name)


def test_defaults_are_those_of_the_dataclasses() -> None:
    configuration = load(None, {}, ())
    assert configuration.settings == Settings()
    assert set(configuration.origins.values()) == {"default"}


def test_every_default_is_inside_its_own_bounds() -> None:
    flags = [Given(name, str(f.default), "test") for name, (_, f) in declared().items()]
    assert load(None, {}, flags).settings == Settings()


def test_later_sources_win_and_each_value_knows_its_origin(tmp_path: Path) -> None:
    path = file(tmp_path, "server:\n  host: 0.0.0.0\n  port: 1\ndata_node:\n  seal_age_s: 5\nserver:\n  drain_s: 1\n")
    environ = {"SHEAFDB_SERVER__PORT": "2", "SHEAFDB_LOGGING__LEVEL": "debug", "PATH": "/bin"}
    configuration = load(path, environ, [from_flag("logging.level=error")])
    assert value(configuration, "server.host") == ("0.0.0.0", f"{path}:2")
    assert value(configuration, "server.port") == (2, "environment SHEAFDB_SERVER__PORT")
    assert value(configuration, "server.drain_s") == (1.0, f"{path}:7")
    assert value(configuration, "data_node.seal_age_s") == (5.0, f"{path}:5")
    assert value(configuration, "logging.level") == ("error", "--set")
    assert value(configuration, "log.channels") == (4, "default")
    assert isinstance(configuration.settings.data_node.seal_age_s, float)


def test_an_empty_file_is_no_settings(tmp_path: Path) -> None:
    assert load(file(tmp_path, "# nothing\n"), {}, ()).settings == Settings()


def test_a_service_variable_of_kubernetes_is_not_ours() -> None:
    assert load(None, {"SHEAFDB_PORT": "tcp://10.0.0.1:19530"}, ()).settings == Settings()


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("server.prot=1", "unknown setting server.prot (from --set)"),
        ("server.port=many", "server.port = 'many' (from --set): expected a whole number"),
        ("server.port=1.5", "server.port = '1.5' (from --set): expected a whole number"),
        ("server.port=70000", "server.port = '70000' (from --set): expected 0 to 65535"),
        ("server.drain_s=nan", "server.drain_s = 'nan' (from --set): expected a number"),
        ("server.drain_s=-1", "server.drain_s = '-1' (from --set): expected at least 0"),
        ("logging.level=loud", "logging.level = 'loud' (from --set): expected one of debug, info, warning, error"),
        ("server.port", "--set takes section.name=value, not 'server.port'"),
        ("server.tls_cert=a.pem", "server.tls_cert and server.tls_key are set together"),
    ],
)
def test_a_wrong_flag_is_one_line_that_names_it(flag: str, says: str) -> None:
    assert says in refused(None, None, flag)


def test_a_wrong_variable_is_named() -> None:
    message = refused(None, {"SHEAFDB_SERVER__PORT": "x"})
    assert message == "server.port = 'x' (from environment SHEAFDB_SERVER__PORT): expected a whole number"
    assert "unknown setting nowhere.port" in refused(None, {"SHEAFDB_NOWHERE__PORT": "1"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("server:\n  prot: 1\n", "unknown setting server.prot (from {file}:2)"),
        ("serv:\n  port: 1\n", "unknown setting serv.port (from {file}:2)"),
        ("server: 3\n", "{file}: line 1: expected settings of server"),
        ("- server\n", "{file}: line 1: expected sections"),
        ("server:\n  port: [1]\n", "server.port must be a single value (from {file}:2)"),
        ("server:\n  port:\n", "server.port must be a single value (from {file}:2)"),
        ("server:\n  port: 1\n  port: 2\n", "server.port is set twice (from {file}:3)"),
        ("server:\n  port: true\n", "server.port = 'true' (from {file}:2): expected a whole number"),
        ("server: [\n", "configuration file {file}: "),
    ],
)
def test_a_wrong_file_is_one_line_that_names_file_and_line(tmp_path: Path, text: str, says: str) -> None:
    path = file(tmp_path, text)
    assert says.format(file=path) in refused(path)


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    assert refused(missing) == f"configuration file {missing}: No such file or directory"
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "binary.yaml" in refused(tmp_path / "binary.yaml")


def test_the_documented_table_is_that_of_the_code() -> None:
    assert (ROOT / "docs/settings.md").read_text() == settings_page.render(), "run `make docs`"
