# shellcheck shell=bash
# Part of install.sh: muxers that run from an installation, which an upgrade would give the modules of two versions.

YES=0 # 1: --yes, go on although a muxer runs
GOES_ON=0 # 1: a muxer runs, and goes on with the modules that it has loaded
PROC=${MUXER_PROC:-/proc}

running_muxers() { # DIR -> one line for each muxer and worker that runs from DIR, as far as this account can see them
    local dir=$1 folder words
    for folder in "$PROC"/[0-9]*; do
        mapfile -d '' -t words < <(cat -- "$folder/cmdline" 2>/dev/null)
        case " ${words[*]} " in
            *muxer_process.py* | *' -m muxer '* | *run_console_script*) ;;
            *) continue ;;
        esac
        case " ${words[*]} $(realpath -- "$folder/cwd" 2>/dev/null)/ " in
            *" $dir/"*) say "process ${folder##*/}: ${words[*]:0:6}" ;;
        esac
    done
}

confirm_stopped() { # DIR, what happens to it: go on only when no muxer runs from DIR, or when the user wants to
    local dir=$1 what=$2 running answer=''
    mapfile -t running < <(running_muxers "$dir")
    if ! ((${#running[@]})); then return 0; fi
    if ((YES)); then
        printf '%s\n' "Warning: a muxer runs from $dir." "${running[@]/#/  }"
        GOES_ON=1
        return 0
    fi
    if [[ -t 0 ]]; then
        printf '%s\n' "A muxer runs from $dir; stop it before it is $what, because it loads modules until it ends:" "${running[@]/#/  }"
        read -r -p 'Go on nevertheless? [y/N] ' answer || true
        if [[ $answer == [yY]* ]]; then
            GOES_ON=1
            return 0
        fi
    fi
    fail "$EXIT_RUNNING" "a muxer runs from $dir; nothing was changed." "${running[@]}" \
        'Stop it first (systemctl stop recording-muxer), or add --yes.'
}
