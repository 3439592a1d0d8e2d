"""install.sh, run as a user runs it, and machines with only the programs that a test installs."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 120

SHIPPED_FILES = (
    *("install.sh", "install.d", "muxer", "thirdparty", "docs"),
    *("muxer.cfg.sample", "encryptPassword.py", "README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"),
)
SCRIPT_TOOLS = (
    *("bash", "basename", "cat", "chmod", "comm", "cp", "cut", "dirname", "env", "find", "grep", "head", "ln", "mkdir"),
    *("mktemp", "mv", "realpath", "rm", "rmdir", "sed", "sha256sum", "sort", "tail", "uname", "wc", "xargs"),
)
NO_VENV_OUTPUT = "the system parts are all there"
OS_RELEASES = {
    "debian": 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "rhel": 'ID=rhel\nID_LIKE="fedora"\nPRETTY_NAME="Red Hat Enterprise Linux 9.4"\n',
    "other": 'ID=plan9\nPRETTY_NAME="Plan 9"\n',
}


def run_installer(
    *arguments: str | Path,
    source: Path = ROOT,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    before: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run install.sh of `source` without a terminal. `before` is a command prefix."""
    return subprocess.run(
        [*before, shutil.which("bash") or "bash", str(source / "install.sh"), *map(str, arguments)],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def copy_source(target: Path) -> Path:
    """Copy the files of a release to `target`, without leftover files of earlier runs."""
    target.mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__", "*.log*", "muxer.cfg", "wheels", "ffmpeg", "openssl")
    for name in SHIPPED_FILES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, target / name, ignore=ignore)
        elif path.exists():
            shutil.copy2(path, target / name)
    return target


class FakeMachine:
    """A machine with only the programs that a test installs: its PATH contains links to real tools, and fakes."""

    def __init__(self, folder: Path, distribution: str, user: int) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self.os_release = folder / "os-release"
        self.os_release.write_text(OS_RELEASES[distribution])
        self.log = folder / "log"
        self.policy = folder / "policy-rc.d"
        self.modules = folder / "modules"
        self.system_python = folder / "system-python"
        self.rabbitmq = folder / "rabbitmq-server"
        for name in SCRIPT_TOOLS:
            real = shutil.which(name)
            assert real, name
            (self.bin / name).symlink_to(real)
        self.add_program("id", f'case "$1" in -un) echo account ;; *) echo {user} ;; esac')

    def add_program(self, name: str, script: str = "exit 0") -> None:
        """Put an executable on PATH; it may write its calls to `$LOG`."""
        path = self.bin / name
        path.write_text(f"#!{shutil.which('bash')}\nLOG={str(self.log)!r}\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def with_python(self, name: str = "python3") -> FakeMachine:
        """Install a Python that works except for virtual environments, where a test may end."""
        self.add_program(name, f'[[ $1 == -m ]] && {{ echo "{NO_VENV_OUTPUT}"; exit 1; }}; exec "{sys.executable}" "$@"')
        return self

    def with_tools(self) -> FakeMachine:
        self.add_program("ffmpeg", "echo ' V..... libx264  H.264'")
        self.add_program("ffprobe")
        self.add_program("openssl", "echo OpenSSL 3.0.13 30 Jan 2024")
        return self

    def build_environment(self) -> dict[str, str]:
        return {
            "PATH": str(self.bin),
            "MUXER_OS_RELEASE": str(self.os_release),
            "MUXER_POLICY_RC_D": str(self.policy),
            "MUXER_MODULES": str(self.modules),
            "MUXER_SYSTEM_PYTHON": str(self.system_python),
            "MUXER_RABBITMQ": str(self.rabbitmq),
        }

    def run_installer(self, *arguments: str | Path, source: Path) -> subprocess.CompletedProcess[str]:
        return run_installer(*arguments, source=source, env=self.build_environment())

    def logged_calls(self) -> str:
        return self.log.read_text() if self.log.exists() else ""
