"""LD_LIBRARY_PATH: openssl runs with its own libraries, every other program without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from muxer.system.openssl_libraries import add_own_folders, library_folders, remove_foreign_folders


@pytest.fixture
def build(tmp_path: Path) -> Path:
    for name in ("build/bin/openssl", "build/lib64/libcrypto.so.3", "build/lib/engine.so", "tools/ffmpeg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.posix
def test_the_folders_with_a_libcrypto_belong_to_openssl(build: Path) -> None:
    openssl = build / "build" / "bin" / "openssl"
    assert library_folders(str(openssl)) == (f"{build}/build/lib64",)
    (build / "build" / "bin" / "libcrypto.so").touch()
    assert library_folders(str(openssl)) == (f"{build}/build/bin", f"{build}/build/lib64")
    (build / "link").symlink_to(openssl)
    assert library_folders(str(build / "link")) == library_folders(str(openssl))
    assert library_folders(str(build / "tools" / "openssl")) == ()


@pytest.mark.posix
@pytest.mark.parametrize(
    ("inherited", "openssl", "others"),
    [
        (None, "{own}", None),
        ("", "{own}", None),
        ("{own}:$LD_LIBRARY_PATH", "{own}", None),
        ("${{LD_LIBRARY_PATH}}:{own}", "{own}", None),
        ("{own}:", "{own}", None),
        ("{own}/:/opt/x", "{own}:{own}/:/opt/x", "/opt/x"),
        ("/opt/x:{own}:/opt/y", "{own}:/opt/x:/opt/y", "/opt/x:/opt/y"),
        ("/opt/x", "{own}:/opt/x", "/opt/x"),
    ],
)
def test_the_library_path_of_each_program(build: Path, inherited: str | None, openssl: str, others: str | None) -> None:
    own = f"{build}/build/lib64"
    environ = {"HOME": "/"} | ({} if inherited is None else {"LD_LIBRARY_PATH": inherited.format(own=own)})
    assert add_own_folders(environ, [own]) == {"HOME": "/", "LD_LIBRARY_PATH": openssl.format(own=own)}
    wanted = {"HOME": "/"} | ({"LD_LIBRARY_PATH": others} if others else {})
    assert remove_foreign_folders(environ, [own], str(build / "tools" / "ffmpeg")) == wanted


def test_a_folder_of_libraries_that_both_share_stays(build: Path) -> None:
    own = f"{build}/build/lib64"
    assert remove_foreign_folders({"LD_LIBRARY_PATH": own}, [own], f"{build}/build/bin/ffmpeg") == {"LD_LIBRARY_PATH": own}
