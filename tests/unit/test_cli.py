import json
import subprocess
import sys
from pathlib import Path

import pytest

from sheafdb import __version__


def sheafdb(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sheafdb.cli", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_version() -> None:
    result = sheafdb("--version")
    assert (result.returncode, result.stdout) == (0, f"sheafdb {__version__}\n")


def test_version_loads_nothing_heavy() -> None:
    program = (
        "import sys, sheafdb.cli; "
        "print(sorted({'numpy', 'pyarrow', 'faiss', 'hnswlib', 'grpc', 'pymilvus', 'structlog'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize("output", ["table", "json"])
def test_a_reader_that_has_had_enough_is_no_failure_to_tell(output: str) -> None:
    command = [sys.executable, "-m", "sheafdb.cli", "config", "--output", output]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 1


def test_config_is_a_table_of_name_value_origin(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("logging:\n  level: debug\n")
    lines = sheafdb("config", "--config", str(file), "--port", "7").stdout.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["server.port"] == ["7", "--port"]
    assert rows["logging.level"] == ["debug", f"{file}:2"]
    assert rows["server.host"] == ["127.0.0.1", "default"]


def test_config_as_json() -> None:
    document = json.loads(sheafdb("config", "--output", "json", "--set", "log.channels=8").stdout)
    assert document["log.channels"] == {"value": 8, "from": "--set"}
    assert document["log.record_bytes_max"]["from"] == "default"


@pytest.mark.parametrize("command", [["config"], ["standalone", "--data", "never-made"]])
def test_a_wrong_setting_is_one_line_and_exit_code_2(command: list[str]) -> None:
    result = sheafdb(*command, "--port", "99999")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "sheafdb: server.port = '99999' (from --port): expected 0 to 65535\n"
    assert not Path("never-made").exists()


@pytest.mark.parametrize("arguments", [["standalone"], ["nonsense"], ["config", "--output", "xml"], []])
def test_wrong_use_is_exit_code_2(arguments: list[str]) -> None:
    result = sheafdb(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
