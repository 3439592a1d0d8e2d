#!/usr/bin/env bash
# Builds the deb and the rpm package of this source folder: tools/packages.sh OUTPUT_FOLDER
# It fetches the wheels of the Python packages for each Python of the field into thirdparty/wheels/, see
# docs/developer/packages.md. Needs dpkg-deb and rpmbuild, and a network.
set -euo pipefail
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
readonly PYTHONS=(3.11 3.12 3.13 3.14)

say() { printf '%s\n' "$*"; }

fail() { # exit code, message
    printf 'packages.sh: %s\n' "$2" >&2
    exit "$1"
}

# shellcheck source=install.d/layout.sh
. "$ROOT/install.d/layout.sh"
# shellcheck disable=SC2034 # stage() reads it
FLEET=1

fetch_wheels() {
    local version platform=()
    if [[ $(uname -m) == x86_64 ]]; then platform=(--platform linux_x86_64); fi
    rm -rf -- "$ROOT/thirdparty/wheels"
    for version in "${PYTHONS[@]}"; do
        python3 "$ROOT/thirdparty/fetch.py" --for fleet "${platform[@]}" --python-version "$version"
    done
}

make_payload() { # folder: the files as they are installed
    local payload=$1 home=$1/opt/recording-muxer
    mkdir -p -- "$home" "$payload/etc/recording-muxer" "$payload/usr/bin" "$payload/usr/lib/systemd/system"
    stage "$home"
    mkdir -- "$home/package" "$home/thirdparty/wheels"
    cp -- "$ROOT"/thirdparty/wheels/*.whl "$home/thirdparty/wheels/"
    install -m 755 -- "$ROOT/tools/packages/setup" "$home/package/setup"
    cp -- "$ROOT"/docs/recording-muxer*.service "$payload/usr/lib/systemd/system/"
    ln -s ../../opt/recording-muxer/recording-muxer "$payload/usr/bin/recording-muxer"
    sed -e 's|^temp_dir =.*|temp_dir = /var/lib/recording-muxer|' \
        -e 's|^logfile_path =.*|logfile_path = /var/log/recording-muxer|' \
        "$ROOT/muxer.cfg.sample" >"$payload/etc/recording-muxer/muxer.cfg"
    chmod -R u=rwX,go=rX -- "$payload"
    chmod 700 "$payload/etc/recording-muxer"
    chmod 600 "$payload/etc/recording-muxer/muxer.cfg"
}

fill_in() { # template -> its text
    sed -e "s/@VERSION@/$VERSION/" -e "s/@ARCHITECTURE@/$(dpkg --print-architecture)/" -e "s/@SUMMARY@/$SUMMARY/" "$1"
}

build_deb() { # payload, output folder
    local script
    mkdir -- "$1/DEBIAN"
    fill_in "$ROOT/tools/packages/control" >"$1/DEBIAN/control"
    for script in preinst postinst prerm postrm; do install -m 755 -- "$ROOT/tools/packages/$script" "$1/DEBIAN/"; done
    say /etc/recording-muxer/muxer.cfg >"$1/DEBIAN/conffiles"
    say 'interest-noawait /usr/bin/python3' >"$1/DEBIAN/triggers"
    (cd -- "$1" && find opt usr -type f -exec md5sum {} + >DEBIAN/md5sums)
    dpkg-deb -Zgzip -z1 --build --root-owner-group "$1" "$2" >/dev/null
    rm -rf -- "$1/DEBIAN"
}

build_rpm() { # payload, output folder, work folder
    fill_in "$ROOT/tools/packages/recording-muxer.spec" >"$3/recording-muxer.spec"
    rpmbuild -bb --quiet --define "_topdir $3/rpm" --define "_rpmdir $2" --define '_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm' \
        --define "payload $1" --define "scripts $ROOT/tools/packages" --define '_build_id_links none' \
        --define '_binary_payload w1.gzdio' "$3/recording-muxer.spec"
}

main() {
    local output tool
    [[ $# == 1 ]] || fail 2 'usage: tools/packages.sh OUTPUT_FOLDER'
    for tool in dpkg-deb rpmbuild; do
        command -v "$tool" >/dev/null || fail 3 "$tool is missing: apt-get install dpkg rpm"
    done
    mkdir -p -- "$1"
    output=$(realpath -- "$1")
    work=$(mktemp -d)
    trap 'rm -rf -- "$work"' EXIT
    cd -- "$ROOT"
    VERSION=$(version_in "$ROOT")
    SUMMARY=$(sed -n 's/^description = "\(.*\)"$/\1/p' pyproject.toml)
    fetch_wheels
    make_payload "$work/payload"
    build_deb "$work/payload" "$output"
    build_rpm "$work/payload" "$output" "$work"
}

main "$@"
