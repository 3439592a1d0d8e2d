#!/usr/bin/env bash
# Builds the archives and the deb and rpm packages of a release in dist/: tools/release.sh [--no-checks]
# The version is that of muxer/__init__.py; CHANGELOG.md must have a section for it, and nothing may be uncommitted.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

fail() {
    printf 'release.sh: %s\n' "$1" >&2
    exit 1
}

[[ $* == "" || $* == --no-checks ]] || fail 'usage: tools/release.sh [--no-checks]'
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
# Packages from what is in the archive, whatever else is in this folder.
export_folder=$(mktemp -d)
trap 'rm -rf -- "$export_folder"' EXIT
tar -xzf "dist/$name.tar.gz" -C "$export_folder"
"$export_folder/$name/tools/packages.sh" dist
cd dist
files=("$name.tar.gz" "$name.zip" recording-muxer[_-]"$version"[_-]*.deb recording-muxer-"$version"-*.rpm)
sha256sum "${files[@]}" >"$name.sha256"
git tag -a "v$version" -m "Recording Muxer $version"
printf 'dist/%s\n' "${files[@]}" "$name.sha256"
