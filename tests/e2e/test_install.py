"""install.sh, run as a user runs it: its messages, its exit codes and the layout of the installation.

The network, the package managers and root are the only things faked: a closed port for the registry, and small
executables on a PATH that holds nothing else. What works is tested with the real pip and the real registry.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.installer import NO_VENV_OUTPUT, ROOT, TIMEOUT_SECONDS, FakeMachine, copy_source, run_installer
from tests.support.tiers import spread_variants


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return copy_source(tmp_path / "source of it")


# ---- command line ------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("--help",), ("-h",)])
def test_help_shows_usage(arguments: tuple[str, ...]) -> None:
    result = run_installer(*arguments)
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: ./install.sh")
    assert "leaves its results in a\n                folder recording-muxer-demo-" in result.stdout
    assert not result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to do: name an action"),
        (("--demos",), "unknown option: --demos"),
        (("demo",), "unknown option: demo"),
        (("--demo", "--test"), "--demo and --test: one at a time"),
        (("--prefix", "/tmp/x", "--test"), "--prefix and --test: one at a time"),
        (("--prefix",), "--prefix needs a folder"),
        (("--prefix=",), "--prefix needs a folder"),
        (("--prefix", "--demo"), "--prefix needs a folder"),
        (("--fleet", "--demo"), "--fleet goes with --prefix DIR"),
        (("--fleet",), "--fleet goes with --prefix DIR"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str) -> None:
    result = run_installer(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Usage: ./install.sh" in result.stderr
    assert not result.stdout


# ---- an installation ---------------------------------------------------------------------------------


def read_tree(folder: Path) -> dict[str, bytes]:
    """Return all files below `folder` outside its environments, with their content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith((".venv", "venv")) for part in path.relative_to(folder).parts)
    }


def start_muxer(prefix: Path) -> subprocess.CompletedProcess[str]:
    """Start the muxer as in the guide, from the folder of the package, to show its usage."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = ["../venv/bin/python", "muxer_process.py", "--help"]
    return subprocess.run(
        command, cwd=prefix / "muxer", env=env, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )


@pytest.fixture(scope="module")
def first_installation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Install once for all tests of this module: a source folder, and the installation that `--prefix` created."""
    folder = tmp_path_factory.mktemp("first")
    source, prefix = copy_source(folder / "source of it"), folder / "a folder" / "with blanks"
    (source / "muxer" / "retired").mkdir()
    (source / "muxer" / "retired" / "__init__.py").touch()
    (source / "muxer" / "outdated.py").touch()
    (source / "muxer" / "muxer.cfg").write_text("the developer's own")
    result = run_installer("--prefix", os.path.relpath(prefix, source), source=source, cwd=source)
    assert result.returncode == 0, result.stdout + result.stderr
    last = result.stdout.splitlines()[-1]
    assert last.startswith("Start: ")
    assert "muxer_process.py --config-file=/etc/recording-muxer/muxer.cfg" in last, "where the documentation has it"
    assert "Check: " in result.stdout and "Account:    run what follows with the account of the service" in result.stdout
    assert "recording-muxer check --config-file=/etc/recording-muxer/muxer.cfg" in result.stdout
    return source, prefix


@pytest.fixture
def installation(first_installation: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    source, prefix = tmp_path / "the source", tmp_path / "the prefix"
    shutil.copytree(first_installation[0], source)
    shutil.copytree(first_installation[1], prefix, symlinks=True, ignore=shutil.ignore_patterns(".venv-*"))
    for environment in first_installation[1].glob(".venv-*"):  # thousands of files that no test writes to
        (prefix / environment.name).symlink_to(environment)
    return source, prefix


def test_prefix_has_the_layout_of_the_guide(installation: tuple[Path, Path]) -> None:
    _, prefix = installation
    expected = ["muxer/muxer_process.py", "thirdparty/requirements.txt", "thirdparty/README.md", "README.md", "LICENSE"]
    expected += ["muxer.cfg.sample", "muxer/muxer.cfg.sample", "encryptPassword.py", "muxer/encryptPassword.py"]
    for name in expected:
        assert (prefix / name).is_file(), name
    assert not (prefix / "muxer" / "muxer.cfg").exists()
    assert not (prefix / ".staging").exists()
    assert "recording-muxer" in (prefix / ".installed").read_text().splitlines()
    started = start_muxer(prefix)
    assert started.returncode == 0, started.stderr


def test_links_between_documents_work_in_an_installation(installation: tuple[Path, Path]) -> None:
    _, prefix = installation
    documents = [prefix / name for name in (prefix / ".installed").read_text().splitlines() if name.endswith(".md")]
    links = [
        (page, link) for page in documents for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    ]
    assert len(links) > 100
    assert [f"{page.relative_to(prefix)}: {link}" for page, link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("through_a_link", spread_variants([True, False], 2))
def test_the_command_of_an_installation_works_in_any_folder(
    installation: tuple[Path, Path], tmp_path: Path, through_a_link: bool
) -> None:
    _, prefix = installation
    command, folder = prefix / "recording-muxer", tmp_path / "elsewhere"
    (folder / "muxer").mkdir(parents=True)
    for name in ("muxer/__init__.py", "argparse.py"):
        (folder / name).write_text("raise SystemExit('the wrong module')")
    if through_a_link:
        (tmp_path / "recording-muxer").symlink_to(command)
        command = tmp_path / "recording-muxer"
    (folder / "my.cfg").write_text("[htcc]\nbase_uri = https://rws\ncontact_center_id = cc 1\n")
    env = {**os.environ, "PYTHONPATH": str(folder)}
    how = {"cwd": folder, "env": env, "capture_output": True, "text": True, "timeout": TIMEOUT_SECONDS, "check": False}
    shown = subprocess.run([str(command), "config", "--config-file=my.cfg", "--changed"], **how)  # type: ignore[call-overload]
    assert (shown.returncode, "[htcc]\tcontact_center_id\tcc 1\tfile, line 3" in shown.stdout) == (0, True), shown.stderr
    refused = subprocess.run([str(command), "run"], **how)  # type: ignore[call-overload]
    assert refused.returncode == 2 and "--config-file" in refused.stderr
    usage = subprocess.run([str(command), "--help"], **how).stdout  # type: ignore[call-overload]
    assert usage.startswith("usage: recording-muxer COMMAND") and " status " in usage and " lab " not in usage
    status = subprocess.run([str(command), "status"], **how)  # type: ignore[call-overload]
    assert "usage: recording-muxer status " in status.stderr


def test_upgrade_deletes_stale_files_and_keeps_user_files(installation: tuple[Path, Path]) -> None:
    source, prefix = installation
    start_muxer(prefix)
    compiled = prefix / "muxer" / "__pycache__" / "outdated.cpython-311.pyc"
    compiled.parent.mkdir(exist_ok=True)
    compiled.touch()
    users = ("muxer/muxer.cfg", "muxer/muxer.log", "muxer/own.py", "muxer.keystore", "muxer/retired/a note")
    users += ("thirdparty/ffmpeg/ffmpeg", ".venv-own/bin/python")  # type: ignore[assignment]
    for name in users:
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text(f"mine: {name}")
    environment = (prefix / "venv").resolve()
    shutil.rmtree(source / "muxer" / "retired")
    (source / "muxer" / "outdated.py").unlink()
    with (source / "muxer" / "__init__.py").open("a") as module:
        module.write("\n# upgraded\n")

    result = run_installer(f"--prefix={prefix}", source=source)
    assert result.returncode == 0, result.stdout + result.stderr
    assert not (prefix / "muxer" / "outdated.py").exists()
    assert not compiled.exists()
    assert not (prefix / "muxer" / "retired" / "__init__.py").exists()
    assert (prefix / "muxer" / "__init__.py").read_text().endswith("# upgraded\n")
    assert (prefix / "venv").resolve() == environment, "an unchanged lock keeps its environment"
    for name in users:
        assert (prefix / name).read_text() == f"mine: {name}"


@pytest.mark.long
def test_fleet_packages_are_installed_on_request_and_kept(installation: tuple[Path, Path]) -> None:
    source, prefix = installation
    without = prefix / (prefix / "venv").readlink()
    kept = without.resolve()
    lock = prefix / "thirdparty" / "requirements-fleet.txt"
    look = [prefix / "venv" / "bin" / "python", "-c", "import dramatiq.brokers.rabbitmq, httpx, pika"]
    assert not lock.exists() and b"dramatiq" in subprocess.run(look, capture_output=True, check=False).stderr

    result = run_installer("--prefix", prefix, "--fleet", source=source)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "(requirements-fleet.txt)" in result.stdout
    subprocess.run(look, check=True)

    result = run_installer("--prefix", prefix, source=source)
    assert (result.returncode, "Installing Python packages" in result.stdout) == (0, False), result.stderr
    subprocess.run(look, check=True)
    assert lock.exists() and start_muxer(prefix).returncode == 0

    lock.unlink()
    assert not without.is_symlink()
    without.symlink_to(kept)  # creating it again takes long
    result = run_installer("--prefix", prefix, source=source)
    assert result.returncode == 0, result.stderr
    assert not lock.exists() and subprocess.run(look, capture_output=True, check=False).returncode == 1


@pytest.mark.long
def test_version_that_does_not_start_is_not_installed(installation: tuple[Path, Path]) -> None:
    source, prefix = installation
    before = read_tree(prefix)
    for name in ("pipeline/job.py", "muxer_process.py"):  # the first is imported after the command line is parsed
        (source / "muxer" / name).write_text("import a_module_that_does_not_exist\n")
        result = run_installer("--prefix", prefix, source=source)
        assert result.returncode == 1
        assert "a_module_that_does_not_exist" in result.stderr
        assert "the new version does not start" in result.stderr
        assert read_tree(prefix) == before


@pytest.mark.long
def test_failed_upgrade_is_rolled_back(installation: tuple[Path, Path], tmp_path: Path) -> None:
    source, prefix = installation
    before, environment = read_tree(prefix), (prefix / "venv").resolve()
    with (source / "muxer" / "__init__.py").open("a") as module:
        module.write("\n# upgraded\n")
    (source / "muxer" / "brand_new.py").touch()
    fake = tmp_path / "bin" / "mv"
    fake.parent.mkdir()
    fails_at = 'case "$*" in */muxer/muxer_process.py) exit 1 ;; esac'
    fake.write_text(f'#!/bin/sh\n{fails_at}\nexec {shutil.which("mv")} "$@"\n')
    fake.chmod(0o755)
    result = run_installer("--prefix", prefix, source=source, env={"PATH": f"{fake.parent}:{os.environ['PATH']}"})
    assert result.returncode == 1
    assert "the old ones were put back" in result.stderr
    assert read_tree(prefix) == before
    assert (prefix / "venv").resolve() == environment


@pytest.mark.parametrize("inside", [".", "muxer", "muxer/../installed"])
def test_prefix_refuses_the_source(source: Path, inside: str) -> None:
    before = sorted(source.rglob("*"))
    result = run_installer("--prefix", inside, source=source, cwd=source)
    assert result.returncode == 2
    assert "is the source, or inside it" in result.stderr
    assert sorted(source.rglob("*")) == before


def test_prefix_refuses_foreign_files(source: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "taken"
    (prefix / "muxer").mkdir(parents=True)
    (prefix / "muxer" / "muxer_process.py").write_text("another product")
    before = read_tree(prefix)
    result = run_installer("--prefix", prefix, source=source)
    assert result.returncode == 2
    assert f"{prefix}/muxer/muxer_process.py is there and not of this script's making" in result.stderr
    assert read_tree(prefix) == before

    file = tmp_path / "file"
    file.touch()
    result = run_installer("--prefix", file, source=source)
    assert result.returncode == 2
    assert "is not a folder" in result.stderr


# ---- removal; the tests of a removal that keeps files are in test_install_upgrade ---------------------


def test_removal_leaves_nothing_of_an_installation_without_files_of_the_user(installation: tuple[Path, Path]) -> None:
    source, prefix = installation
    subprocess.run(
        ["../venv/bin/python", "muxer_process.py", "--help"], cwd=prefix / "muxer", check=True, capture_output=True
    )
    assert run_installer("--uninstall", prefix, source=source).returncode == 0
    assert not prefix.exists()


def test_purge_removes_everything(installation: tuple[Path, Path], tmp_path: Path) -> None:
    source, prefix = installation
    (prefix / "muxer" / "muxer.cfg").write_text("mine")
    result = run_installer("--uninstall", prefix, "--purge", source=source)
    assert result.returncode == 0 and not prefix.exists() and "Your own files" not in result.stdout


# ---- machines where it cannot continue ---------------------------------------------------------------


def test_missing_root_and_sudo_is_an_error(source: Path, tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine", "debian", user=1000).with_python()
    result = machine.run_installer("--demo", source=source)
    assert result.returncode == 3
    assert "neither root nor sudo is at hand. Run as root:" in result.stderr
    assert "apt-get update && apt-get install -y ffmpeg openssl\n" in result.stderr


def test_sudo_password_prompt_without_terminal_is_an_error(source: Path, tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine", "debian", user=1000).with_python()
    machine.add_program("sudo", "exit 1")
    result = machine.run_installer("--demo", source=source)
    assert result.returncode == 3
    assert "apt-get install -y ffmpeg openssl\n" in result.stderr


def test_only_missing_packages_are_installed_through_sudo(source: Path, tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine", "debian", user=1000).with_python().with_tools()
    (machine.bin / "ffprobe").unlink()
    machine.add_program("sudo", '[[ $1 == -n ]] && shift; AS_ROOT=1 exec "$@"')
    machine.add_program("true")
    bring_it = f"[[ $1 == install ]] && cp {machine.bin}/ffmpeg {machine.bin}/ffprobe"
    machine.add_program("apt-get", f'echo "$AS_ROOT $*" >>"$LOG"; {bring_it}')
    result = machine.run_installer("--demo", source=source)
    assert "Installing system packages: ffmpeg\n" in result.stdout
    assert machine.logged_calls() == "1 update -q\n1 install -q -y --no-install-recommends ffmpeg\n"
    assert NO_VENV_OUTPUT in result.stderr


def test_unknown_distribution_is_an_error(source: Path, tmp_path: Path) -> None:
    result = FakeMachine(tmp_path / "machine", "other", user=0).run_installer("--test", source=source)
    assert result.returncode == 3
    assert "cannot install packages on Plan 9. Please install by hand:" in result.stderr
    for part in ("Python 3.11 or later", "ffmpeg, with", "OpenSSL 1.1.1 or later"):
        assert part in result.stderr


@pytest.mark.parametrize(
    ("version", "accepted"),
    [
        ("OpenSSL 1.1.1k  FIPS 25 Mar 2021", True),
        ("OpenSSL 1.0.2k-fips  26 Jan 2017", False),
        ("LibreSSL 3.8.2", False),
    ],
)
def test_openssl_version_is_checked(source: Path, tmp_path: Path, version: str, accepted: bool) -> None:
    machine = FakeMachine(tmp_path / "machine", "other", user=0).with_python().with_tools()
    machine.add_program("openssl", f"echo '{version}'")
    result = machine.run_installer("--demo", source=source)
    assert result.returncode == 3
    assert ("OpenSSL 1.1.1 or later" in result.stderr) is not accepted


def test_ffmpeg_without_encoder_is_refused(source: Path, tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine", "other", user=0).with_python().with_tools()
    machine.add_program("ffmpeg", "echo ' V..... libopenh264  H.264'")
    result = machine.run_installer("--demo", source=source)
    assert result.returncode == 3
    assert "its H.264 encoder libx264" in result.stderr


def test_red_hat_with_repository_installs_packages(source: Path, tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine", "rhel", user=0).with_python().with_tools()
    for name in ("ffmpeg", "ffprobe"):
        (machine.bin / name).rename(tmp_path / name)
    machine.add_program("dnf", f'echo "$*" >>"$LOG"; cp {tmp_path}/ff* {machine.bin}/')
    result = machine.run_installer("--demo", source=source)
    assert machine.logged_calls() == "install -q -y ffmpeg\n"
    assert NO_VENV_OUTPUT in result.stderr


def test_red_hat_without_repository_is_explained(source: Path, tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine", "rhel", user=0).with_python()
    machine.add_program("dnf", 'echo "Error: Unable to find a match"; exit 1')
    result = machine.run_installer("--demo", source=source)
    assert result.returncode == 3
    assert "Unable to find a match" in result.stderr
    assert "enable RPM Fusion first" in result.stderr
    assert "dnf install -y ffmpeg openssl\n" in result.stderr


@pytest.mark.long
def test_environment_for_tests_includes_browsers(source: Path, tmp_path: Path) -> None:
    debian = FakeMachine(tmp_path / "debian", "debian", user=0).with_python().with_tools()
    debian.add_program("apt-get", 'echo "$*" >>"$LOG"')
    assert debian.run_installer("--test", source=source).returncode == 3
    assert " curl git " in debian.logged_calls()
    assert " python3-swift nginx libnginx-mod-http-dav-ext lighttpd lighttpd-mod-webdav chromium " in debian.logged_calls()
    assert debian.logged_calls().endswith(" chromium firefox-esr prometheus rabbitmq-server\n")
    red_hat = FakeMachine(tmp_path / "red hat", "rhel", user=0).with_python().with_tools()
    red_hat.add_program("dnf", 'echo "$*" >>"$LOG"')
    result = red_hat.run_installer("--test", source=source)
    assert red_hat.logged_calls().endswith(
        "".join(f"install -q -y {name}\n" for name in ("chromium", "firefox", "golang-github-prometheus", "rabbitmq-server"))
    )
    assert "Chromium (for the tests)" in result.stderr and "have no Chromium: enable EPEL first" in result.stderr
    assert "nginx with its module dav-ext (for the tests)" in result.stderr and "no module dav-ext" in result.stderr
    assert "OpenStack Swift with its S3 API" in result.stderr and "have no python3-swift" in result.stderr
    assert "lighttpd with mod_webdav (for the tests)" in result.stderr and "have no lighttpd" in result.stderr
    assert "put that of a Prometheus release on PATH" in result.stderr
    assert "RabbitMQ (for the tests)" in result.stderr and "enable that of RabbitMQ first" in result.stderr
    red_hat.add_program("chromium-browser")
    red_hat.add_program("firefox")
    assert "Chromium" not in red_hat.run_installer("--test", source=source).stderr


@pytest.mark.parametrize("works", [True, False])
def test_packages_for_tests_start_no_services(source: Path, tmp_path: Path, works: bool) -> None:
    """Nothing may start them while they are installed, nor at the next boot; other packages may start theirs afterwards.

    One that is enabled before is the machine's own.
    """
    machine = FakeMachine(tmp_path / "machine", "debian", user=0).with_python().with_tools()
    for name in ("chromium", "firefox", "true"):
        machine.add_program(name)
    logged = f'{machine.policy}; echo "$1: the policy says $?" >>"$LOG"'
    machine.add_program("apt-get", f"[[ $1 == install ]] || exit 0\n{logged}\nexit {0 if works else 1}")
    machine.add_program("systemctl", 'case $2 in is-enabled) [[ $3 == epmd.socket ]] ;; *) echo "$*" >>"$LOG" ;; esac')
    machine.add_program("sh", 'exec bash "$@"')
    machine.run_installer("--test", source=source)
    lines = machine.logged_calls().splitlines()
    brought = ("nginx.service", "lighttpd.service", "prometheus.service", "rabbitmq-server.service", "epmd.service")
    disabled = [f"--quiet disable {service}" for service in brought] if works else []
    assert lines == ["install: the policy says 101", *disabled]
    assert not machine.policy.exists()


def test_only_services_of_missing_packages_are_disabled(source: Path, tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine", "debian", user=0).with_python().with_tools()
    for name in ("chromium", "firefox", "true", "erl", "nginx", "lighttpd"):
        machine.add_program(name)
    for name in ("nginx/modules/ngx_http_dav_ext_module.so", "lighttpd/mod_webdav.so"):
        (machine.modules / name).parent.mkdir(parents=True)
        (machine.modules / name).touch()
    machine.add_program("apt-get")
    machine.add_program("systemctl", 'echo "$*" >>"$LOG"; [[ $2 == disable ]]')
    shutil.copy2(machine.bin / "erl", machine.rabbitmq)
    machine.run_installer("--test", source=source)
    logged = machine.logged_calls()
    assert "--quiet disable prometheus.service" in logged and "rabbitmq" not in logged and "epmd" not in logged
    assert "nginx" not in logged and "lighttpd" not in logged


def test_existing_service_policy_is_unchanged(source: Path, tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine", "debian", user=0).with_python().with_tools()
    machine.policy.write_text("its own")
    machine.add_program("apt-get", 'echo "$*" >>"$LOG"')
    machine.run_installer("--test", source=source)
    assert "prometheus" in machine.logged_calls() and machine.policy.read_text() == "its own"


def test_apt_failure_without_network_is_reported(source: Path, tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine", "debian", user=0).with_python()
    machine.add_program("apt-get", 'echo "E: Failed to fetch, could not resolve the host"; exit 100')
    result = machine.run_installer("--demo", source=source)
    assert result.returncode == 3
    assert "could not resolve the host" in result.stderr
    assert "the package manager could not install:\n    ffmpeg, with its H.264 encoder" in result.stderr
    assert "Check that this machine reaches its package repositories" in result.stderr


@pytest.mark.long
def test_pip_failure_without_network_is_reported(source: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}
    nothing_else = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    result = run_installer("--prefix", prefix, source=source, env={**unreachable, **nothing_else})
    assert result.returncode == 3
    assert "No matching distribution found" in result.stderr
    assert f"pip could not install the Python packages of {source}/thirdparty/requirements.txt" in result.stderr
    assert "thirdparty/wheels/" in result.stderr
    assert not list(prefix.glob(".venv*")), "no half environment is left, to be taken for a whole one"


def ready_environments(source: Path) -> dict[str, str]:
    """Create environments with the tests' packages that install.sh accepts as its own. Returns the arguments it needs."""
    python = source / "bin" / "python3"
    wrappers = {python: sys.executable, source / ".venv-test" / "bin" / "npm": str(Path(sys.executable).with_name("npm"))}
    wrappers |= {source / name / "bin" / "python": sys.executable for name in (".venv", ".venv-test")}
    for path, program in wrappers.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\nexec "{program}" "$@"\n')
        path.chmod(0o755)
    for name, lock in ((".venv", "requirements.txt"), (".venv-test", "requirements-test.txt")):
        made_of = f'"{python}" -c "import sys; print(sys.version, sys.base_prefix)"; sha256sum <"{source}/thirdparty/{lock}"'
        stamp = subprocess.run(["bash", "-c", made_of], capture_output=True, text=True, check=True).stdout
        (source / name / ".stamp").write_text(stamp)
    return {"PATH": f"{python.parent}:{os.environ['PATH']}"}


@pytest.mark.long
def test_npm_failure_without_network_is_reported(source: Path, tmp_path: Path) -> None:
    packages = source / "tests" / "s3rver"
    packages.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy2(ROOT / "tests" / "s3rver" / name, packages)
    unreachable = {"NPM_CONFIG_REGISTRY": "http://127.0.0.1:9/", "NPM_CONFIG_FETCH_RETRIES": "0"}
    nothing_else = {"NPM_CONFIG_USERCONFIG": os.devnull, "NPM_CONFIG_CACHE": str(tmp_path / "cache")}
    result = run_installer("--test", source=source, env={**ready_environments(source), **unreachable, **nothing_else})
    assert result.returncode == 3, result.stderr
    assert "ECONNREFUSED" in result.stderr
    assert f"npm could not install the packages of {packages}/package-lock.json" in result.stderr
    assert ".npmrc" in result.stderr
    assert not (packages / "node_modules" / ".stamp").exists(), "what is not whole is not taken for it the next time"


# ---- which Python ------------------------------------------------------------------------------------


def test_first_working_python_of_required_version_is_used(source: Path, tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine", "other", user=0).with_tools()
    machine.add_program("python3", "echo 'pyenv: python3: command not found' >&2; exit 127")
    machine.add_program("python3.13", "exit 1")
    machine.with_python("python3.12")
    result = machine.run_installer("--demo", source=source)
    assert f"Installing Python packages: {source}/.venv (requirements.txt), " in result.stdout
    assert " packages; this may take minutes" in result.stdout, "pip says nothing meanwhile"
    assert NO_VENV_OUTPUT in result.stderr


def test_missing_python_is_reported(source: Path, tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine", "debian", user=1000).with_tools()
    machine.add_program("python3", "exit 1")
    result = machine.run_installer("--demo", source=source)
    assert result.returncode == 3
    assert "apt-get install -y python3 python3-venv\n" in result.stderr
    assert "If this release has no Python 3.11" in result.stderr


def test_python_without_venv_module_is_reported(source: Path, tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine", "debian", user=1000).with_tools()
    machine.add_program("python3", f'[[ $2 == "import ensurepip, venv" ]] && exit 1; exec "{sys.executable}" "$@"')
    result = machine.run_installer("--demo", source=source)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert result.returncode == 3
    assert f"apt-get install -y python{version}-venv\n" in result.stderr
