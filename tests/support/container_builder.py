"""Images built and run by buildah, with a base image made of Debian packages: no registry of images is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.installer import ROOT
from tests.support.requirements import require_program

BASE = "docker.io/library/debian:for-tests"
BUILD_SECONDS = 1200
# The base is kept for other runs.
CACHE = ROOT / "tests" / "builds" / "cache" / "debian-base.tar"


class ContainerBuilder:
    """A separate storage of images in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.buildah = require_program("buildah")
        if os.geteuid() != 0:
            # Without root, buildah needs subordinate ids, which an account of a build machine may lack.
            require_program("newuidmap")
        self._options = ["--root", str(folder / "images"), "--runroot", str(folder / "run")]

    def call(self, *arguments: str | Path, seconds: float = BUILD_SECONDS) -> str:
        """Run a command of buildah and return its output."""
        command = [self.buildah, *self._options, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout.strip()

    def build_image(self, context: Path, name: str) -> None:
        """Build the image of the Containerfile in `context`."""
        self._create_base(context.parent / "base")
        options = ("--isolation", "chroot", "--format", "docker", "--pull-never", "--build-arg", f"BASE={BASE}")
        self.call("build", *options, "-f", context / "containers" / "Containerfile", "-t", name, context)

    def image_settings(self, name: str) -> dict[str, Any]:
        """Return the settings of an image: user, command and the like."""
        return dict(json.loads(self.call("inspect", "--type", "image", name))["Docker"]["config"])

    def start_program(self, container: str, command: Sequence[str], mounts: Mapping[Path, str]) -> subprocess.Popen[str]:
        """Start a program in a container with the settings of its image, and the network of this machine."""
        volumes = [f"--volume={source}:{target}" for source, target in mounts.items()]
        line = [self.buildah, *self._options, "run", "--isolation", "chroot", *volumes, container, "--", *command]
        return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def remove_all(self) -> None:
        """Remove all containers and images."""
        for what in (("rm", "--all"), ("rmi", "--all", "--force")):
            subprocess.run([self.buildah, *self._options, *what], capture_output=True, timeout=BUILD_SECONDS, check=False)

    def _create_base(self, folder: Path) -> None:
        """Create the image of a small Debian system."""
        if not CACHE.exists():
            debootstrap = require_program("debootstrap")
            found = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.MULTILINE)
            suite = found[1] if found else "bookworm"
            command = [debootstrap, "--variant=minbase", suite, str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
            assert done.returncode == 0, done.stdout[-3000:]
            CACHE.parent.mkdir(parents=True, exist_ok=True)
            new = CACHE.with_suffix(f".{os.getpid()}")
            subprocess.run(["tar", "--exclude=./var/cache/apt/*", "-C", str(folder), "-cf", str(new), "."], check=True)
            new.replace(CACHE)
            shutil.rmtree(folder)
        container = self.call("from", "scratch")
        self.call("add", "--quiet", container, CACHE, "/")
        self.call("commit", "--quiet", container, BASE)
        self.call("rm", container)


def copy_context(target: Path) -> Path:
    """Copy what git tracks, and the wheels of the image; return the folder."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    command = [sys.executable, "thirdparty/fetch.py", "--for", "fleet", "--python-version", "3.11"]
    done = subprocess.run(command, cwd=target, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return target
