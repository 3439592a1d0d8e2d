#!/usr/bin/env bash
# Builds the archives of a release in dist/: tools/release.sh [--no-checks]
# The version is that of muxer/__init__.py; CHANGELOG.md must have a section for it, and nothing may be uncommitted.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

fail() {
    printf 'release.sh: %s\n' "$1" >&2
    exit 1
}

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' muxer/__init__.py)
[[ -n $version ]] || fail 'muxer/__init__.py names no version'
grep -q "^## $version\$" CHANGELOG.md || fail "CHANGELOG.md has no section \"## $version\""
[[ -z $(git status --porcelain) ]] || fail 'commit or remove what git status lists first'
if git rev-parse -q --verify "refs/tags/v$version" >/dev/null; then fail "the tag v$version exists; raise the version"; fi
if [[ ${1:-} != --no-checks ]]; then ./install.sh --test --long; fi

name=recording-muxer-$version
mkdir -p dist
git archive --format=tar.gz --prefix="$name/" -o "dist/$name.tar.gz" HEAD
git archive --format=zip --prefix="$name/" -o "dist/$name.zip" HEAD
(cd dist && sha256sum "$name.tar.gz" "$name.zip" >"$name.sha256")
git tag -a "v$version" -m "Recording Muxer $version"
printf 'dist/%s\n' "$name.tar.gz" "$name.zip" "$name.sha256"
