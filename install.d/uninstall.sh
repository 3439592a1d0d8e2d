# shellcheck shell=bash
# Part of install.sh: --uninstall, which removes what --prefix put there, and nothing else without --purge.

PURGE=0 # 1: also what the user has in the folder
# What docs/services.md tells to create outside the folder.
OUTSIDE=(/etc/recording-muxer /var/lib/recording-muxer /var/log/recording-muxer /etc/systemd/system/recording-muxer{,@,-worker@}.service)

run_uninstall() { # DIR
    local dir version stay=() path
    dir=$(realpath -m -- "$1")
    if [[ ! -f $dir/.installed ]]; then
        fail "$EXIT_USAGE" "$dir is no installation by this script: it has no file .installed."
    fi
    if [[ ! -w $dir ]]; then fail "$EXIT_USAGE" "$dir cannot be written by $(id -un). Run this as its owner."; fi
    version=$(version_in "$dir")
    confirm_stopped "$dir" removed
    say "Removing the muxer ${version:-of an unknown version}: $dir"
    if ((PURGE)); then
        rm -rf -- "$dir"
    else
        remove_installed "$dir"
    fi
    if [[ -e $dir ]]; then
        say "Your own files stay: $dir (--purge removes them, too)"
        find "$dir" -type f -printf '  %p\n' | LC_ALL=C sort | head -n 20
    fi
    for path in "${OUTSIDE[@]}"; do
        if [[ -e $path ]]; then stay+=("$path"); fi
    done
    if ((${#stay[@]})); then
        say 'These stay. Remove them when no other installation uses them:' "${stay[@]/#/$'\n'  }"
    fi
}

remove_installed() { # DIR: the files that --prefix put there, its environments, and folders that are empty then
    local dir=$1 file folder
    while read -r file; do
        folder=$(dirname -- "$dir/$file")
        rm -f -- "$dir/$file"
        rm -rf -- "$folder/__pycache__"
        while [[ $folder != "$dir" ]]; do
            rmdir -- "$folder" 2>/dev/null || break
            folder=$(dirname -- "$folder")
        done
    done <"$dir/.installed"
    for folder in "$dir"/.venv-*; do
        if [[ -f $folder/.stamp ]]; then rm -rf -- "$folder"; fi
    done
    if [[ -L $dir/venv ]]; then rm -f -- "$dir/venv"; fi
    rm -rf -- "$dir/.staging"
    rm -f -- "$dir/.installed"
    rmdir -- "$dir" 2>/dev/null || true
}
