#!/usr/bin/env bash
# Another release of Debian in a folder, and commands in it. Needs root, debootstrap and the package mirror of this machine.
#
#   debian.sh make SUITE DIR [PACKAGE...]           create it (trixie, forky, sid, ...), with these packages
#   debian.sh run DIR [--share PATH]... COMMAND...  run a command in it; a shared path is the same on both sides
#   debian.sh check SUITE DIR [demo|test|long]...   create it, unless it exists, clone this source into it, and run
#                                                   `./install.sh` there with --demo, --test, --test --long
#
# Read from the environment:
#   MUXER_DEBIAN_MIRROR   the package mirror; by default the one that apt uses here
#   PIP_*, NPM_CONFIG_*, NODE_EXTRA_CA_CERTS, *_proxy   passed on to the commands
#
# A command has the network of this machine, and mounts of its own, which end with it: nothing is left mounted. It keeps
# its process id, so that signals reach it. Remove the folder with rm -rf.
set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
readonly SOURCE=/root/recording-muxer # where `check` puts this source

fail() {
    printf 'debian.sh: %s\n' "$1" >&2
    exit 3
}

usage() {
    sed -n '2,7{s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 2
}

mirror() { # the mirror of the main packages, as apt of this machine uses it
    local found=${MUXER_DEBIAN_MIRROR:-}
    if [[ -z $found ]]; then
        # shellcheck disable=SC2016
        found=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Origin: Debian' |
            awk '$2 !~ /-/ && $3 == "main" { print $1; exit }')
    fi
    if [[ -n $found ]]; then printf '%s\n' "${found%/}"; fi
}

make_system() { # suite, folder, packages...
    local suite=$1 whole=$2 folder=$2.partial scripts=/usr/share/debootstrap/scripts
    shift 2
    [[ -n $(type -P debootstrap) ]] || fail 'debootstrap is missing: apt-get install debootstrap'
    [[ ! -e $whole ]] || fail "$whole exists already"
    rm -rf -- "$folder"
    local mirror
    mirror=$(mirror)
    [[ -n $mirror ]] || fail 'apt knows no mirror of Debian here: run apt-get update, or set MUXER_DEBIAN_MIRROR'
    # A release that is newer than debootstrap is made like the newest that it knows.
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$folder" "$mirror" \
        "$scripts/$([[ -e $scripts/$suite ]] && echo "$suite" || echo sid)" >&2
    # The authorities that this machine trusts beside those of Debian: a proxy, a mirror of the site.
    if [[ -d /usr/local/share/ca-certificates ]]; then
        cp -r /usr/local/share/ca-certificates "$folder/usr/local/share/"
    fi
    # How apt reaches the mirror from here.
    apt-config dump | grep -E '^Acquire::(http|https|Check-|Retries|Max-ValidTime)' >"$folder/etc/apt/apt.conf.d/90mirror" || true
    printf '#!/bin/sh\nexit 101\n' >"$folder/usr/sbin/policy-rc.d" # packages start no services
    chmod 755 "$folder/usr/sbin/policy-rc.d"
    run_inside "$folder" update-ca-certificates >&2
    if (($#)); then
        run_inside "$folder" apt-get update -q >&2
        run_inside "$folder" apt-get install -q -y --no-install-recommends "$@" >&2
    fi
    mv -- "$folder" "$whole"
}

run_inside() { # folder, [--share path]..., command... -> this process becomes the command, unless it is in a subshell
    local folder shares=() variable kept=()
    folder=$(realpath -- "$1")
    shift
    while [[ ${1:-} == --share ]]; do
        shares+=("$2")
        shift 2
    done
    while IFS= read -r variable; do kept+=("$variable=${!variable}"); done < <(
        compgen -e | grep -E '^(PIP_.*|NPM_CONFIG_.*|NODE_EXTRA_CA_CERTS|.*_(proxy|PROXY))$' || true
    )
    # shellcheck disable=SC2016
    "${EXEC[@]}" unshare --mount sh -ec '
        folder=$1 shares=$2
        shift 2
        mount --bind "$folder" "$folder" # ip makes network namespaces only where / is a mount
        mount --rbind /dev "$folder/dev"
        mount -t proc proc "$folder/proc"
        mount --rbind /sys "$folder/sys"
        cp -L /etc/resolv.conf /etc/hosts "$folder/etc/"
        printf "%s\n" "$shares" | while IFS= read -r path; do
            if [ -z "$path" ]; then continue; fi
            mkdir -p "$folder$path"
            mount --bind "$path" "$folder$path"
        done
        exec chroot "$folder" sh -c "cd \"\$0\" 2>/dev/null; exec \"\$@\"" "$PWD" "$@"
    ' sh "$folder" "$(printf '%s\n' "${shares[@]}")" "${CLEAN[@]}" "${kept[@]}" "$@"
}

# `check` and `make` give their commands an environment of their own; what `run` starts has that of its caller.
EXEC=()
CLEAN=(env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive)

check_system() { # suite, folder, actions... of install.sh
    local suite=$1 folder=$2 action failed=0
    shift 2
    for action in "$@"; do [[ $action == @(demo|test|long) ]] || usage; done
    if [[ ! -e $folder ]]; then make_system "$suite" "$folder"; fi
    rm -rf -- "$folder$SOURCE"
    git clone -q --no-local -- "$ROOT" "$folder$SOURCE"
    for action in "${@:-demo}"; do
        case $action in
            demo | test) set -- "--$action" ;;
            long) set -- --test --long ;;
        esac
        if run_inside "$folder" sh -c 'cd "$1" && shift && exec ./install.sh "$@"' sh "$SOURCE" "$@" </dev/null; then
            printf '%s: ./install.sh %s: ok\n' "$suite" "$*"
        else
            printf '%s: ./install.sh %s: FAILED\n' "$suite" "$*"
            failed=1
        fi
    done
    return "$failed"
}

if (($# < 3)); then usage; fi
action=$1
shift
[[ $(id -u) == 0 ]] || fail 'needs root'
case $action in
    make) make_system "$@" ;;
    run)
        EXEC=(exec) CLEAN=(env)
        run_inside "$@"
        ;;
    check) check_system "$@" ;;
    *) usage ;;
esac
