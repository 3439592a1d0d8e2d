"""An unpacked openssl with its own libraries: checked at the start, and used to encrypt."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.keys import Recipient, load_recipients
from muxer.app.program_checks import program_version
from muxer.crypto.envelope import Encryptor
from muxer.errors import ToolError
from muxer.gir.rws import Certificate
from muxer.system.process import Runner
from tests.support import own_openssl

FFMPEG = shutil.which("ffmpeg") or "ffmpeg"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Recipient:
    return load_recipients(tmp_path_factory.mktemp("keys"), 1)[0]


@pytest.mark.parametrize(
    ("program", "libraries", "variable"),
    [
        ("openssl", ".", None),
        ("openssl", ".", "{folder}:$LD_LIBRARY_PATH"),
        ("bin/openssl", "lib", None),
        ("bin/openssl", "lib64", "/opt/other:"),
        ("bin/openssl", "elsewhere", "{folder}/elsewhere:$LD_LIBRARY_PATH"),
    ],
)
def test_openssl_runs_with_its_own_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Recipient, program: str, libraries: str, variable: str | None
) -> None:
    openssl = str(own_openssl.build_openssl(tmp_path, program, libraries))
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    if variable:
        monkeypatch.setenv("LD_LIBRARY_PATH", variable.format(folder=tmp_path))
    runner = Runner(openssl)
    assert program_version(runner, openssl, "version").startswith("OpenSSL")
    clear, cipher = tmp_path / "clear.mp4", tmp_path / "clear.mp4.bin"
    clear.write_bytes(b"media" * 1000)
    pem = Encryptor(openssl, runner).encrypt_file(clear, [Certificate(reader.alias, reader.pem)], cipher)
    (tmp_path / "envelope.pem").write_text(pem)
    command = ["openssl", "cms", "-decrypt", "-binary", "-inform", "PEM", "-in", tmp_path / "envelope.pem"]
    command += ["-content", cipher, "-recip", reader.certificate_file, "-inkey", reader.key_file]
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    assert subprocess.run(command, capture_output=True, check=True).stdout == clear.read_bytes()


def test_ffmpeg_runs_without_libraries_of_openssl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library has a name that ffmpeg needs, and ffmpeg cannot use it."""
    openssl = own_openssl.build_openssl(tmp_path)
    needed = subprocess.run(["ldd", FFMPEG], capture_output=True, text=True, check=False).stdout
    for name in re.findall(r"libcrypto\.so\.\d\S*", needed):
        (tmp_path / name).write_text("no library")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path}:/opt/other")
    if "libcrypto" in needed:
        with pytest.raises(ToolError, match="shared libraries"):
            program_version(Runner(), FFMPEG, "-version")
    assert program_version(Runner(str(openssl)), FFMPEG, "-version").startswith("ffmpeg version ")
    seen = Runner(str(openssl)).run(["sh", "-c", 'echo "$LD_LIBRARY_PATH"'], timeout=10)
    assert seen == b"/opt/other\n"
