"""The programs on a simulated Windows, as far as Linux can show that; see ``support/windows.py``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path, PureWindowsPath

import pytest

from lab.cases import Case
from lab.lab import Lab
from muxer.config import load_config, programs, types
from muxer.config.keystore import KEY_FILE, KEYSTORE_FILE
from tests.support.daemon import PACKAGE, log_lines, wait_until
from tests.support.windows import POSIX_MODULES, every_module

ROOT = PACKAGE.parent
TIMEOUT_SECONDS = 60
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def windows_command(script: Path, *arguments: str) -> list[str]:
    """Return the command that runs a script on the simulated Windows. It needs the packages of the lab."""
    return [sys.executable, "-B", str(ROOT / "tests" / "support" / "windows.py"), str(script), *arguments]


def run_code(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(code)
    return run_script(script)


def run_script(script: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    done = windows_command(script, *arguments)
    return subprocess.run(
        done, input=stdin, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )


MISSING_IMPORTS = (
    "import fcntl",
    "import pwd",
    "import os; os.getuid()",
    "from os import fork",
    "import signal; signal.SIGKILL",
)


def test_posix_only_modules_are_missing(tmp_path: Path) -> None:
    tried = "try: exec(code)\n    except Exception as error: print(type(error).__name__)\n    else: print('found')"
    done = run_code(tmp_path, f"for code in {MISSING_IMPORTS}:\n    {tried}\n")
    modules, names = ["ModuleNotFoundError"] * 2, ["AttributeError", "ImportError", "AttributeError"]
    assert done.stdout.split() == modules + names, done.stderr


def test_every_module_can_be_imported_without_posix(tmp_path: Path) -> None:
    names = [name for name in every_module() if not name.endswith("__main__")]
    assert {"muxer.app.daemon", "muxer.pipeline.workspace", "lab.serve", "muxer.muxer_process"} <= set(names)
    code = f"import importlib, sys\nfor name in {[*names, 'encryptPassword']}:\n    importlib.import_module(name)\n"
    shown = f"print(sys.platform, sorted(set(sys.modules) & {POSIX_MODULES}), sys.modules['muxer.system.process']._LINUX)"
    done = run_code(tmp_path, code + shown)
    assert (done.stdout, done.returncode) == ("win32 [] False\n", 0), done.stderr


@pytest.mark.long
def test_the_muxer_runs_with_a_keystore_of_dpapi_until_ctrl_break(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab") as lab:
        (call,) = lab.add_case(Case.PLAIN)
        config, log = lab.folder / "muxer.cfg", lab.folder / "log" / "recording-muxer-single.log"
        text = lab.config_text(**{"htcc.password": "", "logfile.format": "json"})
        config.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
        password = f"htcc={lab.site.rws_account.password}\n"
        stored = run_script(ROOT / "encryptPassword.py", f"--config-file={config}", "--stdin", stdin=password)
        assert (stored.returncode, stored.stderr) == (0, "")
        assert (config.parent / KEYSTORE_FILE).exists() and not (config.parent / KEY_FILE).exists()
        assert run_script(ROOT / "encryptPassword.py", f"--config-file={config}", "--list").stdout == "[htcc] password\n"

        started = windows_command(PACKAGE / "muxer_process.py", f"--config-file={config}")
        with subprocess.Popen(started, env=ENVIRONMENT, cwd=PACKAGE, stderr=subprocess.PIPE, text=True) as muxer:
            try:
                labelled = lambda: (call.id, "screenRecording") in lab.store.label_posts  # noqa: E731
                wait_until(labelled, TIMEOUT_SECONDS, "the label", log)
                second = run_script(PACKAGE / "muxer_process.py", f"--config-file={config}")
                assert second.returncode == 2 and f"process {muxer.pid} on " in second.stderr
                muxer.send_signal(signal.SIGUSR1)
                _, errors = muxer.communicate(timeout=TIMEOUT_SECONDS)
            finally:
                muxer.kill()
        assert muxer.returncode == 0, errors
        assert log_lines(log)[-1]["message"] == "stopped"
        assert not list((lab.folder / "temp").glob("muxer-job-*"))


class FakeDrivePath(PureWindowsPath):
    """A path on a computer with only this one folder."""

    def absolute(self) -> FakeDrivePath:
        assert self.is_absolute(), self
        return self

    def is_dir(self) -> bool:
        return self == PureWindowsPath(r"c:\LOGS\recordingMuxer")


def test_windows_paths_are_read_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(types, "Path", FakeDrivePath)
    monkeypatch.setattr(programs, "Path", FakeDrivePath)
    monkeypatch.setattr(types.os, "access", lambda path, _mode: isinstance(path, FakeDrivePath))  # type: ignore[attr-defined]
    there = r"C:\ffmpeg\bin\ffmpeg.exe"
    monkeypatch.setattr(programs.shutil, "which", lambda value: {there: value}.get(value, f"C:\\{value}"))  # type: ignore[attr-defined]
    config = tmp_path / "muxer.cfg"
    lines = [
        *("[htcc]", "base_uri = https://rws:8081", "contact_center_id = cc", "[processing]"),
        *(r"ffmpeg = C:\ffmpeg\bin\ffmpeg.exe", "[logfile]", r"logfile_path = C:\logs\recordingMuxer"),
    ]
    config.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    loaded = load_config(config, {}, {}).config
    assert str(loaded.logfile.logfile_path) == r"C:\logs\recordingMuxer"
    assert loaded.processing.ffmpeg == r"C:\ffmpeg\bin\ffmpeg.exe"
