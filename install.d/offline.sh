# shellcheck shell=bash
# Part of install.sh: --offline, and Python packages from thirdparty/wheels/.

OFFLINE=0
WHEELS=$ROOT/thirdparty/wheels
FILLED_FOR=$WHEELS/filled-for.txt # written by thirdparty/fetch.py, a line for each run

from_wheels() { ((OFFLINE)) || compgen -G "$WHEELS/*.whl" >/dev/null; }

ensure_offline() { # suffix of the lock file, parts... -> all there without a network, or exit 3 with all that is missing
    local suffix=$1 missing words=()
    shift
    mapfile -t missing < <(missing_parts "$@")
    if ((${#missing[@]})); then mapfile -t words < <(describe_all "${missing[@]}" && how_to_bring "${missing[@]}"); fi
    if ! compgen -G "$WHEELS/*.whl" >/dev/null; then
        words+=("  Python packages: $WHEELS holds none." "    $(how_to_fetch "$suffix" "$(find_python)")")
    fi
    if ((${#words[@]})); then fail "$EXIT_MISSING" 'this is missing, and --offline downloads nothing:' "${words[@]}"; fi
}

how_to_bring() { # missing parts... -> indented lines
    local kind packages
    kind=$(distribution)
    case " $* " in
        *' ffmpeg '* | *' openssl '*)
            say '    Unpack a build in thirdparty/ffmpeg/ or thirdparty/openssl/ (thirdparty/README.md).'
            ;;
    esac
    mapfile -t packages < <(without_build "$@")
    if [[ $kind != unknown ]] && ((${#packages[@]})); then
        say "    From a package source that this machine reaches: $(by_hand "$kind" "${packages[@]}")"
    fi
}

how_to_fetch() { # suffix of the lock file, python or nothing -> one line
    local command='python3 thirdparty/fetch.py'
    if [[ -n $1 ]]; then command+=" --for $1"; fi
    if [[ -n $2 ]]; then command+=" --python-version $(python_version "$2")"; fi
    if [[ $(uname -m) == x86_64 ]]; then command+=' --platform linux_x86_64'; fi
    say "On a machine with a network, in a copy of this folder: $command. Then bring thirdparty/wheels/ here."
}

fail_wheels() { # lock file, python: pip's own words have just been shown
    local suffix filled=() instead=()
    suffix=$(basename -- "$1" .txt)
    suffix=${suffix#requirements}
    if [[ -f $FILLED_FOR ]]; then mapfile -t filled < <(sed 's/^/It was filled for: /' "$FILLED_FOR"); fi
    if ! ((OFFLINE)); then instead=('Or remove that folder: the packages then come from the registry.'); fi
    fail "$EXIT_MISSING" \
        "$WHEELS does not serve for $(basename -- "$1") with Python $(python_version "$2") on $(uname -m): see above which package." \
        "${filled[@]}" "$(how_to_fetch "${suffix#-}" "$2")" "${instead[@]}"
}
