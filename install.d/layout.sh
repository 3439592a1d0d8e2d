# shellcheck shell=bash
# Part of install.sh: --prefix, the layout of an installation in a folder DIR.
#
# DIR/.installed lists what this script put there; nothing else in DIR is ever written over or removed.
# Everything is prepared and tried in DIR/.staging first. Only then are the files renamed into place, and
# put back as they were if one of the renames fails.

STAGING=''  # DIR/.staging: new/ (the version to come), files (its list), old/ and installed (what to put back)
SWAPPING='' # DIR while its files are being replaced: leaving the script now puts the old ones back
VENV=''     # name of the environment that the new version runs in
FLEET=0     # 1: with the packages of a fleet

shipped_files() { # the package's own files, without what running it in the source folder leaves there
    find muxer -name '.*' -prune -o -name __pycache__ -prune -o -type f \
        ! -name '*.pyc' ! -name '*.log*' ! -name '*.cfg' ! -name '*.keystore' ! -name '*.keystore.*' -print
}

stage() { # staging folder
    local staging=$1 name
    (cd -- "$ROOT" && shipped_files | xargs -d '\n' cp --parents -t "$staging" --)
    mkdir "$staging/thirdparty"
    cp -- "$ROOT/thirdparty/requirements.txt" "$ROOT/thirdparty/README.md" "$staging/thirdparty/"
    if ((FLEET)); then cp -- "$ROOT/thirdparty/requirements-fleet.txt" "$staging/thirdparty/"; fi
    for name in muxer.cfg.sample encryptPassword.py README.md SECURITY.md CHANGELOG.md CONTRIBUTING.md LICENSE docs; do
        if [[ -e $ROOT/$name ]]; then cp -R -- "$ROOT/$name" "$staging/"; fi
    done
    for name in muxer.cfg.sample encryptPassword.py; do
        if [[ -e $ROOT/$name ]]; then cp -- "$ROOT/$name" "$staging/muxer/"; fi
    done
    cp -p -- "$ROOT/install.d/recording-muxer" "$staging/"
    find "$staging" -name __pycache__ -prune -exec rm -rf -- {} +
    chmod -R u=rwX,go=rX -- "$staging" # whatever the umask of those who unpacked the source
}

list_files() { (cd -- "$1" && find . -type f -printf '%P\n' | LC_ALL=C sort); }

check_prefix() { # DIR
    local dir=$1
    case $dir/ in
        "$ROOT"/*) fail "$EXIT_USAGE" "$dir is the source, or inside it. Choose another folder." ;;
    esac
    if [[ $dir/muxer == "$ROOT" ]]; then fail "$EXIT_USAGE" "$dir/muxer is the source. Choose another folder."; fi
    if [[ -e $dir && ! -d $dir ]]; then fail "$EXIT_USAGE" "$dir is not a folder."; fi
    if ! mkdir -p -- "$dir" 2>/dev/null || [[ ! -w $dir ]]; then
        fail "$EXIT_USAGE" "$dir cannot be written by $(id -un). Choose another folder, or run this as its owner."
    fi
    if [[ -e $dir/package/setup ]]; then
        fail "$EXIT_USAGE" "$dir is of a deb or rpm package. Upgrade or remove it with the package manager."
    fi
    if [[ -e $dir/venv && ! -L $dir/venv ]]; then
        fail "$EXIT_USAGE" "$dir/venv is there and not of this script's making. Move it away, or choose another folder."
    fi
}

check_foreign() { # DIR, list of new files: nothing that is not ours may be in their way
    local dir=$1 new=$2 file
    while read -r file; do
        if [[ -e $dir/$file ]]; then
            fail "$EXIT_USAGE" "$dir/$file is there and not of this script's making." 'Move it away, or choose another folder.'
        fi
    done < <(LC_ALL=C comm -13 "$STAGING/installed" "$new")
}

prefix_builds() { # DIR: the builds that the installation will use: its own, else copies of those that lie here
    local build
    for build in ffmpeg openssl; do
        if [[ -e $1/thirdparty/$build ]]; then
            use_build "$1/thirdparty/$build"
        else
            use_build "$ROOT/thirdparty/$build"
        fi
    done
}

prefix_tools() { # DIR: what is missing may also be brought later
    local dir=$1 part missing
    mapfile -t missing < <(missing_parts ffmpeg openssl)
    mapfile -t missing < <(without_build "${missing[@]}")
    if ((${#missing[@]})) && [[ $(distribution) != unknown ]] && become_root; then
        install_parts "$(distribution)" "${missing[@]}" || true
    fi
    for part in $(missing_parts ffmpeg openssl); do
        say "Missing: $(describe "$part")." \
            "Install it, or unpack it in $dir/thirdparty/$part, or name it in muxer.cfg, [processing]."
    done
}

stage_builds() { # DIR, staging folder
    local build
    mkdir "$2/builds"
    for build in ffmpeg openssl; do
        if [[ -d $ROOT/thirdparty/$build && ! -e $1/thirdparty/$build ]]; then
            cp -R -- "$ROOT/thirdparty/$build" "$2/builds/"
        fi
    done
}

place_builds() { # DIR, staging folder: the user's from now on, no upgrade touches them
    local build
    for build in "$2"/builds/*; do
        if [[ -e $build ]]; then mv -- "$build" "$1/thirdparty/"; fi
    done
}

prefix_venv() { # DIR, python -> the environment of this lock, made beside the one in use
    local dir=$1 python=$2 lock=$ROOT/thirdparty/requirements.txt
    if ((FLEET)); then lock=$ROOT/thirdparty/requirements-fleet.txt; fi # it holds the others, too
    VENV=.venv-$(venv_stamp "$python" "$lock" | sha256sum | cut -c 1-12)
    make_venv "$dir/$VENV" "$python" "$lock"
}

try_new() { # DIR, staging folder: does the new version start with nothing but its own environment?
    local log=$WORK/start.log
    local late='import boto3, cryptography.x509, httpx, rich.table, webdav4.client, muxer.app.daemon, muxer.app.assembly' # loaded at the first use
    if ((FLEET)); then late+='; import dramatiq.brokers.rabbitmq, pika'; fi
    if (cd -- "$2/new/muxer" && "$1/$VENV/bin/python" -B muxer_process.py --help &&
        cd .. && "$1/$VENV/bin/python" -B -c "$late") >"$log" 2>&1 </dev/null; then return 0; fi
    show_tail "$log"
    fail "$EXIT_FAILED" "the new version does not start; $1 is unchanged."
}

keep_old() { # DIR, staging folder: what put_back needs
    local dir=$1 staging=$2 file
    if [[ -L $dir/venv ]]; then cp -P -- "$dir/venv" "$staging/old/venv"; fi
    while read -r file; do
        if [[ -f $dir/$file ]]; then (cd -- "$dir" && cp -p --parents -t "$staging/old" -- "$file"); fi
    done <"$staging/installed"
}

put_back() { # DIR, staging folder
    local dir=$1 staging=$2 file
    while read -r file; do rm -f -- "$dir/$file"; done < <(LC_ALL=C comm -13 "$staging/installed" "$staging/files")
    rm -f -- "$dir/venv"
    cp -RPp -- "$staging/old/." "$dir/"
    cp -- "$staging/installed" "$dir/.installed"
}

swap() { # DIR, staging folder
    local dir=$1 staging=$2 file
    SWAPPING=$dir
    LC_ALL=C sort -u -o "$staging/all" -- "$staging/installed" "$staging/files"
    mv -f -- "$staging/all" "$dir/.installed" # so that a run that was killed can be repeated
    while read -r file; do
        mkdir -p -- "$(dirname -- "$dir/$file")"
        mv -f -- "$staging/new/$file" "$dir/$file"
    done <"$staging/files"
    ln -s -- "$VENV" "$staging/venv"
    mv -fT -- "$staging/venv" "$dir/venv"
    # shellcheck disable=SC2034 # read by cleanup() in install.sh
    SWAPPING=''
}

remove_stale() { # DIR, staging folder: what an earlier version shipped and this one does not
    local dir=$1 staging=$2 file folder
    while read -r file; do
        folder=$(dirname -- "$dir/$file")
        rm -f -- "$dir/$file" "$folder/__pycache__/$(basename -- "$file" .py)".*.pyc
        while [[ $folder != "$dir" ]]; do
            rmdir -- "$folder/__pycache__" 2>/dev/null || true
            rmdir -- "$folder" 2>/dev/null || break
            folder=$(dirname -- "$folder")
        done
    done < <(LC_ALL=C comm -23 "$staging/installed" "$staging/files")
    for folder in "$dir"/.venv-*; do
        if [[ -f $folder/.stamp && $folder != "$dir/$VENV" ]]; then rm -rf -- "$folder"; fi
    done
    mv -f -- "$staging/files" "$dir/.installed"
}

version_in() { # folder with muxer/ -> its version, or nothing
    if [[ -f $1/muxer/__init__.py ]]; then sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$1/muxer/__init__.py"; fi
}

describe_change() { # version that is there or nothing, new version -> in words
    local newest
    newest=$(printf '%s\n' "$1" "$2" | sort -V | tail -n 1)
    if [[ -z $1 ]]; then
        say "Installing the muxer $2"
    elif [[ $1 == "$2" ]]; then
        say "Installing the muxer $2 again"
    elif [[ $newest == "$2" ]]; then
        say "Upgrading the muxer from $1 to $2"
    else
        say "Going back from muxer $1 to $2"
    fi
}

warn_closed() { # python, DIR: a service of another account could not run them
    local python=$1 dir=$2 closed
    if [[ $(id -u) != 0 ]]; then return 0; fi
    closed=$(closed_to_others "$python")
    if [[ -n $closed ]]; then
        say "Warning: other accounts cannot use $closed. A service that does not run as root cannot start $python:" \
            'install the Python of the system, or name one with --python.'
    fi
    closed=$(closed_to_others "$python" "$dir")
    if [[ -n $closed ]]; then say "Warning: other accounts cannot use $closed. A service that does not run as root cannot start $dir."; fi
}

run_prefix() { # DIR
    local dir file suffix='' python
    umask 022 # another account runs what root installs
    dir=$(realpath -m -- "$1") # absolute, without symbolic links as far as it exists
    if [[ -f $dir/thirdparty/requirements-fleet.txt ]]; then FLEET=1; fi # an upgrade takes nothing away
    for file in muxer/muxer_process.py muxer.cfg.sample thirdparty/requirements.txt thirdparty/requirements-fleet.txt; do
        [[ -f $ROOT/$file ]] || fail "$EXIT_MISSING" "$ROOT/$file is missing: this is no complete copy of the source."
    done
    check_prefix "$dir"
    confirm_stopped "$dir" replaced
    STAGING=$dir/.staging
    rm -rf -- "$STAGING"
    mkdir -p -- "$STAGING/new" "$STAGING/old"
    stage "$STAGING/new"
    list_files "$STAGING/new" >"$STAGING/files"
    if [[ -f $dir/.installed ]]; then cp -- "$dir/.installed" "$STAGING/installed"; else : >"$STAGING/installed"; fi
    check_foreign "$dir" "$STAGING/files"
    prefix_builds "$dir"
    if ((OFFLINE)); then
        if ((FLEET)); then suffix=fleet; fi
        ensure_offline "$suffix" python ffmpeg openssl
    else
        ensure_parts python
        prefix_tools "$dir"
    fi
    python=$(find_python)
    warn_closed "$python" "$dir"
    prefix_venv "$dir" "$python"
    try_new "$dir" "$STAGING"
    say "$(describe_change "$(version_in "$dir")" "$(version_in "$ROOT")"): $dir"
    stage_builds "$dir" "$STAGING"
    keep_old "$dir" "$STAGING"
    swap "$dir" "$STAGING"
    place_builds "$dir" "$STAGING"
    remove_stale "$dir" "$STAGING"
    start_command "$dir" venv
}

start_command() { # DIR, environment
    local dir=$1 config=/etc/recording-muxer/muxer.cfg # where the documentation, the units and the packages have it
    if ((GOES_ON)); then say 'Restart:    a muxer still runs with the earlier version; restart it'; fi
    if [[ -e $dir/muxer/muxer.cfg ]]; then config=$dir/muxer/muxer.cfg; fi
    if [[ ! -e $config ]]; then
        printf 'Configure:  write %q; %q has an example, %q every option\n' "$config" "$dir/README.md" "$dir/muxer.cfg.sample"
    fi
    say 'Account:    run what follows with the account of the service'
    if [[ -x $dir/recording-muxer ]]; then
        printf 'Check:      %q check --config-file=%q\n' "$dir/recording-muxer" "$config"
    fi
    printf 'Start:      cd %q && %q muxer_process.py --config-file=%q\n' "$dir/muxer" "$dir/$2/bin/python" "$config"
}
