"""The sources of the muxer's four secrets, and the keystores that both programs refuse."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.cases import Case
from lab.lab import Lab
from muxer.config.keystore import CREDENTIAL_NAME, KEY_FILE, KEYSTORE_FILE
from tests.support.bucket import MotoBucket
from tests.support.daemon import PACKAGE, PYTHON, run_muxer
from tests.support.tiers import spread_variants

TIMEOUT_SECONDS = 60
VARIABLES = {
    "htcc.password": "HTCC_PASSWORD",
    "rcs.password": "RCS_PASSWORD",
    "webdav.password": "WEBDAV_PASSWORD",
    "s3.secret_access_key": "S3_SECRET_ACCESS_KEY",
}
Values = dict[str, str]


@dataclass
class SecretsLab:
    """A lab whose recordings need all four secrets: one call is encrypted, the screen file of the other is in S3."""

    lab: Lab
    bucket: MotoBucket
    right: Values

    @property
    def wrong_values(self) -> Values:
        return dict.fromkeys(VARIABLES, "wrong password")

    @property
    def config_path(self) -> Path:
        return self.lab.folder / "muxer.cfg"

    def store_secrets(self, values: Values, **env: str) -> None:
        """Put secrets into a new keystore."""
        for name in (KEYSTORE_FILE, KEY_FILE):
            (self.config_path.parent / name).unlink(missing_ok=True)
        lines = "".join(f"{name.partition('.')[0]}={value}\n" for name, value in values.items())
        done = encrypt_password(self.config_path, "--stdin", stdin=lines, env=env)
        assert done.returncode == 0, done.stderr

    def mux_calls(self, serial: int, file: Values, **env: str) -> None:
        """Let a migration mux two new calls, with these secrets in the file and these variables in the environment."""
        _, (mixed,) = (self.lab.add_case(case, serial=serial) for case in (Case.ENCRYPTED, Case.PLAIN))
        self.bucket.take_screen(self.lab, mixed)
        values = {"s3.endpoint_url": self.bucket.url, "s3.access_key_id": self.bucket.key_id, **file}
        self.config_path.write_text(
            self.lab.config_text(**values, **{"advanced.call_recording_query_string": "startTime=0"})
        )
        done = run_muxer(self.config_path, env=env, seconds=TIMEOUT_SECONDS)
        assert (done.process.returncode, "2 files muxed" in done.out) == (0, True), done.out + done.err
        log = (self.lab.folder / "log" / "recording-muxer-single.log").read_text()
        assert not [value for value in self.right.values() if value in log + done.out + done.err]


def encrypt_password(
    config: Path, *arguments: str, stdin: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    config.touch()
    command = [PYTHON, "-B", str(PACKAGE.parent / "encryptPassword.py"), f"--config-file={config}", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | (env or {})
    return subprocess.run(
        command, input=stdin, env=clean, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, kept_lab: type[Lab]) -> Iterator[SecretsLab]:
    with kept_lab(tmp_path_factory.mktemp("site")) as lab, MotoBucket(checks_signatures=True) as bucket:
        accounts = (lab.site.rws_account, lab.site.rcs_account, lab.site.dav_account)
        secrets = (*(one.password for one in accounts), bucket.secret)
        yield SecretsLab(lab, bucket, dict(zip(VARIABLES, secrets, strict=True)))


@pytest.mark.parametrize(
    "from_environment", [(0, 1), pytest.param((2, 3), marks=pytest.mark.long)], ids=["htcc and rcs", "webdav and s3"]
)
def test_environment_overrides_file_and_file_overrides_keystore(site: SecretsLab, from_environment: tuple[int, ...]) -> None:
    site.store_secrets(site.wrong_values)
    chosen = [name for number, name in enumerate(VARIABLES) if number in from_environment]
    file = {name: "wrong password" if name in chosen else value for name, value in site.right.items()}
    site.mux_calls(from_environment[0], file, **{VARIABLES[name]: site.right[name] for name in chosen})


def test_empty_options_are_read_from_keystore(site: SecretsLab) -> None:
    site.store_secrets(site.right)
    site.mux_calls(10, dict.fromkeys(VARIABLES, ""))


def test_the_muxer_reads_a_keystore_whose_key_is_a_credential(tmp_path: Path) -> None:
    config, credential = tmp_path / "muxer.cfg", tmp_path / CREDENTIAL_NAME
    credential.write_bytes(os.urandom(32))
    credential.chmod(0o400)
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert encrypt_password(config, "--stdin", stdin="htcc=x\n", env=env).returncode == 0
    config.write_text(f"[htcc]\nbase_uri = http://127.0.0.1:9\n[logfile]\nlogfile_path = {tmp_path}\n")
    with_it, without = run_muxer(config, env=env, seconds=TIMEOUT_SECONDS), run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert "[htcc] contact_center_id" in with_it.err and KEYSTORE_FILE not in with_it.err
    assert f"{tmp_path / KEY_FILE}: is missing, and so is the credential" in without.err


# ---- keystores that cannot be used -------------------------------------------------------------------


def truncate_keystore(keystore: Path) -> None:
    keystore.write_bytes(keystore.read_bytes()[:-40])


def replace_by_text(keystore: Path) -> None:
    keystore.write_text("[htcc]\npassword = x\n")


def mark_as_windows(keystore: Path) -> None:
    content = json.loads(keystore.read_text())
    keystore.write_text(json.dumps({**content, "protection": "dpapi"}))


def change_a_byte(keystore: Path) -> None:
    content = json.loads(keystore.read_text())
    sealed = bytearray(base64.b64decode(content["secrets"]["rcs.password"]))
    sealed[-1] ^= 1
    content["secrets"]["rcs.password"] = base64.b64encode(sealed).decode()
    keystore.write_text(json.dumps(content))


def make_readable(keystore: Path) -> None:
    keystore.chmod(0o640)


def make_key_readable(keystore: Path) -> None:
    keystore.with_name(KEY_FILE).chmod(0o604)


def change_owner(keystore: Path) -> None:
    os.chown(keystore, 4321, 4321)


def replace_key(keystore: Path) -> None:
    keystore.with_name(KEY_FILE).write_bytes(os.urandom(32))


def delete_key(keystore: Path) -> None:
    keystore.with_name(KEY_FILE).unlink()


BROKEN_KEYSTORES = {
    truncate_keystore: "is not a keystore of the muxer, or is corrupt",
    replace_by_text: "is not a keystore of the muxer, or is corrupt",
    mark_as_windows: "was created on another kind of system",
    change_a_byte: "[rcs] password cannot be decrypted",
    make_readable: "is open to other accounts (mode 0640)",
    make_key_readable: "is open to other accounts (mode 0604)",
    change_owner: "belongs to another account",
    replace_key: "cannot be decrypted with the key",
    delete_key: "is missing, and so is the credential",
}


@pytest.mark.parametrize("damage", spread_variants(BROKEN_KEYSTORES, 4), ids=lambda damage: damage.__name__)
def test_unusable_keystore_ends_both_programs_with_code_2(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    if damage is change_owner and os.geteuid() != 0:
        pytest.skip("only root can give a file to another account")
    config, keystore = tmp_path / "muxer.cfg", tmp_path / KEYSTORE_FILE
    assert encrypt_password(config, "--stdin", stdin="htcc=first secret\nrcs=second secret\n").returncode == 0
    service = "[htcc]\nbase_uri = http://127.0.0.1:9\ncontact_center_id = c\n"
    config.write_text(f"{service}[logfile]\nlogfile_path = {tmp_path}\n")
    damage(keystore)
    before = keystore.read_bytes()
    errors = [
        run_muxer(config, seconds=TIMEOUT_SECONDS),
        *(encrypt_password(config, one) for one in ("--list", "--remove=htcc")),
    ]
    codes = [errors[0].process.returncode, *(error.returncode for error in errors[1:])]  # type: ignore[attr-defined]
    texts = [errors[0].err, *(error.stderr for error in errors[1:])]  # type: ignore[attr-defined]
    assert codes == [2, 2, 2]
    for text in texts:
        assert BROKEN_KEYSTORES[damage] in text and str(tmp_path / KEYSTORE_FILE) in text  # type: ignore[index]
        assert "Traceback" not in text and "secret" not in text.replace("secret_access_key", "")
    assert keystore.read_bytes() == before
