"""Where the muxer takes its four secrets from, and the keystores that both programs refuse."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.bucket import Bucket
from tests.support.daemon import PACKAGE, PYTHON, run

from muxer.config.keystore import CREDENTIAL, KEY, KEYSTORE
from muxer.lab.cases import Case
from muxer.lab.lab import Lab

SECONDS = 60
VARIABLES = {
    "htcc.password": "HTCC_PASSWORD",
    "rcs.password": "RCS_PASSWORD",
    "webdav.password": "WEBDAV_PASSWORD",
    "s3.secret_access_key": "S3_SECRET_ACCESS_KEY",
}
Values = dict[str, str]


@dataclass
class Site:
    """A lab whose recordings need all four secrets: one call is encrypted, the screen file of the other lies in S3."""

    lab: Lab
    bucket: Bucket
    right: Values

    @property
    def wrong(self) -> Values:
        return dict.fromkeys(VARIABLES, "wrong password")

    @property
    def config(self) -> Path:
        return self.lab.folder / "muxer.cfg"

    def store(self, values: Values, **env: str) -> None:
        """Put secrets into a new keystore."""
        for name in (KEYSTORE, KEY):
            (self.config.parent / name).unlink(missing_ok=True)
        lines = "".join(f"{name.partition('.')[0]}={value}\n" for name, value in values.items())
        done = encrypt_password(self.config, "--stdin", stdin=lines, env=env)
        assert done.returncode == 0, done.stderr

    def mux(self, serial: int, file: Values, **env: str) -> None:
        """Let a migration mux two new calls, with these secrets in the file and these variables in the environment."""
        _, (mixed,) = (self.lab.add_case(case, serial=serial) for case in (Case.ENCRYPTED, Case.PLAIN))
        self.bucket.take_screen(self.lab, mixed)
        values = {"s3.endpoint_url": self.bucket.url, "s3.access_key_id": self.bucket.key_id, **file}
        self.config.write_text(self.lab.config_text(**values, **{"advanced.call_recording_query_string": "startTime=0"}))
        done = run(self.config, env=env, seconds=SECONDS)
        assert (done.process.returncode, "2 files muxed" in done.out) == (0, True), done.out + done.err
        log = (self.lab.folder / "log" / "recording-muxer-single.log").read_text()
        assert not [value for value in self.right.values() if value in log + done.out + done.err]


def encrypt_password(
    config: Path, *arguments: str, stdin: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    config.touch()
    command = [PYTHON, "-B", str(PACKAGE.parent / "encryptPassword.py"), f"--config-file={config}", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | (env or {})
    return subprocess.run(command, input=stdin, env=clean, capture_output=True, text=True, timeout=SECONDS, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, kept_lab: type[Lab]) -> Iterator[Site]:
    with kept_lab(tmp_path_factory.mktemp("site")) as lab, Bucket(checks_signatures=True) as bucket:
        accounts = (lab.site.rws_account, lab.site.rcs_account, lab.site.dav_account)
        secrets = (*(one.password for one in accounts), bucket.secret)
        yield Site(lab, bucket, dict(zip(VARIABLES, secrets, strict=True)))


@pytest.mark.parametrize("from_environment", [(0, 1), (2, 3)], ids=["htcc and rcs", "webdav and s3"])
def test_the_environment_goes_before_the_file_and_the_file_before_the_keystore(
    site: Site, from_environment: tuple[int, ...]
) -> None:
    site.store(site.wrong)
    chosen = [name for number, name in enumerate(VARIABLES) if number in from_environment]
    file = {name: "wrong password" if name in chosen else value for name, value in site.right.items()}
    site.mux(from_environment[0], file, **{VARIABLES[name]: site.right[name] for name in chosen})


def test_what_the_file_leaves_empty_comes_from_the_keystore(site: Site) -> None:
    site.store(site.right)
    site.mux(10, dict.fromkeys(VARIABLES, ""))


def test_the_muxer_reads_a_keystore_whose_key_is_a_credential(tmp_path: Path) -> None:
    config, credential = tmp_path / "muxer.cfg", tmp_path / CREDENTIAL
    credential.write_bytes(os.urandom(32))
    credential.chmod(0o400)
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert encrypt_password(config, "--stdin", stdin="htcc=x\n", env=env).returncode == 0
    config.write_text(f"[htcc]\nbase_uri = http://127.0.0.1:9\n[logfile]\nlogfile_path = {tmp_path}\n")
    with_it, without = run(config, env=env, seconds=SECONDS), run(config, seconds=SECONDS)
    assert "[htcc] contact_center_id" in with_it.err and KEYSTORE not in with_it.err
    assert f"{tmp_path / KEY}: is missing, and so is the credential" in without.err


# ---- keystores that cannot be used -------------------------------------------------------------------


def cut(keystore: Path) -> None:
    keystore.write_bytes(keystore.read_bytes()[:-40])


def replace_by_text(keystore: Path) -> None:
    keystore.write_text("[htcc]\npassword = x\n")


def make_it_of_windows(keystore: Path) -> None:
    content = json.loads(keystore.read_text())
    keystore.write_text(json.dumps({**content, "protection": "dpapi"}))


def change_a_byte(keystore: Path) -> None:
    content = json.loads(keystore.read_text())
    sealed = bytearray(base64.b64decode(content["secrets"]["rcs.password"]))
    sealed[-1] ^= 1
    content["secrets"]["rcs.password"] = base64.b64encode(sealed).decode()
    keystore.write_text(json.dumps(content))


def open_it(keystore: Path) -> None:
    keystore.chmod(0o640)


def open_its_key(keystore: Path) -> None:
    keystore.with_name(KEY).chmod(0o604)


def give_it_away(keystore: Path) -> None:
    os.chown(keystore, 4321, 4321)


def take_the_key_of_another(keystore: Path) -> None:
    keystore.with_name(KEY).write_bytes(os.urandom(32))


def lose_its_key(keystore: Path) -> None:
    keystore.with_name(KEY).unlink()


REFUSED = {
    cut: "is not a keystore of the muxer, or is corrupt",
    replace_by_text: "is not a keystore of the muxer, or is corrupt",
    make_it_of_windows: "was made on another kind of system",
    change_a_byte: "[rcs] password cannot be decrypted",
    open_it: "is open to other accounts (mode 0640)",
    open_its_key: "is open to other accounts (mode 0604)",
    give_it_away: "belongs to another account",
    take_the_key_of_another: "cannot be decrypted with the key",
    lose_its_key: "is missing, and so is the credential",
}


@pytest.mark.parametrize("damage", REFUSED, ids=lambda damage: damage.__name__)
def test_a_keystore_that_cannot_be_used_ends_both_programs_with_code_2(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    if damage is give_it_away and os.geteuid() != 0:
        pytest.skip("only root can give a file to another account")
    config, keystore = tmp_path / "muxer.cfg", tmp_path / KEYSTORE
    assert encrypt_password(config, "--stdin", stdin="htcc=first secret\nrcs=second secret\n").returncode == 0
    service = "[htcc]\nbase_uri = http://127.0.0.1:9\ncontact_center_id = c\n"
    config.write_text(f"{service}[logfile]\nlogfile_path = {tmp_path}\n")
    damage(keystore)
    before = keystore.read_bytes()
    errors = [run(config, seconds=SECONDS), *(encrypt_password(config, one) for one in ("--list", "--remove=htcc"))]
    codes = [errors[0].process.returncode, *(one.returncode for one in errors[1:])]
    texts = [errors[0].err, *(one.stderr for one in errors[1:])]
    assert codes == [2, 2, 2]
    for text in texts:
        assert REFUSED[damage] in text and str(tmp_path / KEYSTORE) in text
        assert "Traceback" not in text and "secret" not in text.replace("secret_access_key", "")
    assert keystore.read_bytes() == before
