# shellcheck shell=bash
# Part of install.sh: the system packages. What is there, what is missing, and how this distribution brings it.
# A "part" is one of: python, venv (Python is there, its venv module is not), ffmpeg, openssl, apache, swift, nginx, lighttpd,
# chromium, firefox, promtool, rabbitmq, iproute, curl, git, dpkg, rpm, buildah, wine.

PYTHON=''    # --python: the Python to use
FOR_OTHERS=0 # 1: --prefix: what root installs, another account runs
readonly MIN_OPENSSL=1.1.1
OS_RELEASE=${MUXER_OS_RELEASE:-/etc/os-release}
POLICY=${MUXER_POLICY_RC_D:-/usr/sbin/policy-rc.d} # what it says decides whether Debian's packages start their services
MODULES=${MUXER_MODULES:-/usr/lib} # where the modules of nginx and lighttpd are, which their programs do not tell
SYSTEM_PYTHON=${MUXER_SYSTEM_PYTHON:-/usr/bin/python3} # the first choice, and that for which Debian packages Swift
RABBITMQ=${MUXER_RABBITMQ:-/usr/lib/rabbitmq/bin/rabbitmq-server} # as the tests start it; the one on PATH asks who starts it
ROOT_PREFIX=() # what to put before a command so that root runs it

works() { "$@" >/dev/null 2>&1 </dev/null; }

distribution() { # debian, redhat or unknown
    local ids=''
    # shellcheck disable=SC1090
    if [[ -r $OS_RELEASE ]]; then ids=$(. "$OS_RELEASE" && printf '%s %s' "${ID:-}" "${ID_LIKE:-}"); fi
    case " $ids " in
        *' debian '* | *' ubuntu '*) say debian ;;
        *' rhel '* | *' fedora '* | *' centos '*) say redhat ;;
        *) say unknown ;;
    esac
}

distribution_name() {
    # shellcheck disable=SC1090
    if [[ -r $OS_RELEASE ]]; then (. "$OS_RELEASE" && say "${PRETTY_NAME:-${ID:-this system}}"); else say 'this system'; fi
}

# Where each program is: a build in a thirdparty/ folder, or its name alone, which means PATH.
declare -A PROGRAM=([ffmpeg]=ffmpeg [ffprobe]=ffprobe [openssl]=openssl)

unpacked() { # folder of thirdparty/, program -> its path when a build was unpacked there; as muxer/config/programs.py
    local file
    for file in "$1/$2" "$1/bin/$2" "$1"/*/"$2" "$1"/*/bin/"$2"; do
        if [[ -f $file ]]; then
            say "$file"
            return
        fi
    done
}

use_build() { # thirdparty/ffmpeg or thirdparty/openssl: what was unpacked there goes before PATH
    local program file
    for program in ffmpeg ffprobe openssl; do
        if [[ ${1##*/} != "${program/probe/mpeg}" ]]; then continue; fi
        file=$(unpacked "$1" "$program")
        if [[ -n $file ]]; then PROGRAM[$program]=$file; fi
    done
}

builds_on_path() { # thirdparty folder: for the lab and the tests, which start programs by their names alone
    local program file
    use_build "$1/ffmpeg"
    use_build "$1/openssl"
    for program in "${!PROGRAM[@]}"; do
        file=${PROGRAM[$program]}
        if [[ $file != /* ]]; then continue; fi
        if works "$file" -version || works "$file" version; then
            PATH=$(dirname -- "$file"):$PATH
        elif [[ $program == openssl ]] && has_openssl; then
            PROGRAM[openssl]=openssl # it runs with its own libraries only: the muxer knows that, the lab needs another one
        fi
    done
}

build_of() { # part -> a file of the build in thirdparty/ that stands for it, if there is one
    local program
    for program in ffmpeg ffprobe openssl; do
        if [[ ${program/probe/mpeg} == "$1" && ${PROGRAM[$program]} == /* ]]; then
            say "${PROGRAM[$program]}"
            return
        fi
    done
}

has_ffmpeg() { # both executables, and the encoder that makes the padding
    works "${PROGRAM[ffprobe]}" -version &&
        grep -q libx264 < <("${PROGRAM[ffmpeg]}" -hide_banner -encoders 2>/dev/null </dev/null)
}

has_openssl() { # with the libraries beside it, as the muxer runs it
    local name version home
    home=$(dirname -- "$(realpath -m -- "${PROGRAM[openssl]}")")
    read -r name version _ < <(
        LD_LIBRARY_PATH=$home:$home/../lib:$home/../lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
            "${PROGRAM[openssl]}" version 2>/dev/null </dev/null
    ) || return 1
    [[ $name == OpenSSL && $(printf '%s\n' "$MIN_OPENSSL" "$version" | sort -V | head -n 1) == "$MIN_OPENSSL" ]]
}

has_apache() {
    local program modules
    for program in apache2 httpd; do
        for modules in /usr/lib/apache2/modules /usr/lib64/httpd/modules /usr/lib/httpd/modules; do
            if PATH=$PATH:/usr/sbin works command -v "$program" && [[ -e $modules/mod_dav.so ]]; then return 0; fi
        done
    done
    return 1
}

has_swift() { works "$SYSTEM_PYTHON" -c 'import swift.common.middleware.s3api'; }
has_nginx() { has_with_module nginx nginx/modules/ngx_http_dav_ext_module.so; }
has_lighttpd() { has_with_module lighttpd lighttpd/mod_webdav.so; }

has_with_module() { # program of /usr/sbin, its WebDAV module below a folder of libraries
    local folder
    for folder in "$MODULES" "${MODULES}64"; do
        if PATH=$PATH:/usr/sbin works command -v "$1" && [[ -e $folder/$2 ]]; then return 0; fi
    done
    return 1
}

has_chromium() { works chromium --version || works chromium-browser --version; }
has_promtool() { works promtool --version; }
has_iproute() { PATH=$PATH:/usr/sbin works command -v ip; }
has_curl() { works command -v curl; }
has_git() { works command -v git; }
has_dpkg() { works command -v dpkg-deb; }
has_rpm() { works command -v rpmbuild; }
has_buildah() { works command -v buildah; }

has_wine() { works command -v wine && works command -v x86_64-w64-mingw32-gcc && [[ -d /usr/include/openssl ]]; }
has_rabbitmq() { [[ -x $RABBITMQ ]] && works command -v erl; }
has_firefox() { works firefox-esr --version || works firefox --version; }

python_is_new() { works "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; }
python_has_venv() { works "$1" -c 'import ensurepip, venv'; }

closed_to_others() { # python, paths... -> the first folder that keeps other accounts from this Python, or from the paths
    "$1" - "${@:2}" 2>/dev/null <<'END'
import os, stat, sys, sysconfig
for path in sys.argv[1:] or (sys.executable, sysconfig.get_path("stdlib")):
    path, closed = os.path.realpath(path), ""
    while path != "/":
        if os.path.exists(path) and not os.stat(path).st_mode & stat.S_IXOTH:
            closed = path
        path = os.path.dirname(path)
    if closed:
        sys.exit(print(closed))
END
}

python_candidates() { # the Python of the system goes first: an installation uses it, so the tests do, too
    local name
    if [[ -x $SYSTEM_PYTHON ]]; then say "$SYSTEM_PYTHON"; fi
    for name in python3 python3.13 python3.12 python3.11 python3.14; do type -aP "$name" || true; done
}

find_python() { # --python, else the best there is: complete, else one that lacks venv, else one that others cannot run
    local path incomplete='' closed=''
    if [[ -n $PYTHON ]]; then
        say "$PYTHON"
        return
    fi
    while read -r path; do
        python_is_new "$path" || continue
        if ! python_has_venv "$path"; then
            incomplete=${incomplete:-$path}
        elif ((FOR_OTHERS)) && [[ $(id -u) == 0 && -n $(closed_to_others "$path") ]]; then
            closed=${closed:-$path}
        else
            say "$path"
            return
        fi
    done < <(python_candidates)
    say "${incomplete:-$closed}"
}

check_python() { # the argument of --python
    PYTHON=$(type -P -- "$1") || fail "$EXIT_USAGE" "--python: $1 is no program."
    python_is_new "$PYTHON" || fail "$EXIT_USAGE" "--python: $PYTHON is no Python 3.11 or later."
    python_has_venv "$PYTHON" || fail "$EXIT_MISSING" "--python: $PYTHON has no venv module."
}

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

missing_parts() { # parts wanted... -> those that are not there, one a line
    local part python
    for part in "$@"; do
        case $part in
            python)
                python=$(find_python)
                if [[ -z $python ]]; then
                    say python
                elif ! python_has_venv "$python"; then
                    say venv
                fi
                ;;
            *) "has_$part" || say "$part" ;;
        esac
    done
}

describe() { # part -> in words
    local build
    build=$(build_of "$1")
    if [[ -n $build ]]; then
        say "$(wanted "$1"), in place of $build, which cannot be used here"
    else
        wanted "$1"
    fi
}

wanted() { # part -> in words
    case $1 in
        python) say 'Python 3.11 or later, with its venv module' ;;
        venv) say "the venv module of $(find_python)" ;;
        ffmpeg) say 'ffmpeg, with its H.264 encoder libx264, and ffprobe (on PATH)' ;;
        openssl) say "OpenSSL $MIN_OPENSSL or later: the openssl command (on PATH)" ;;
        apache) say 'Apache httpd with mod_dav (for the tests)' ;;
        swift) say 'OpenStack Swift with its S3 API, as a package for the Python of the system (for the tests)' ;;
        nginx) say 'nginx with its module dav-ext (for the tests)' ;;
        lighttpd) say 'lighttpd with mod_webdav (for the tests)' ;;
        chromium) say 'Chromium (for the tests)' ;;
        firefox) say 'Firefox (for the tests)' ;;
        promtool) say 'promtool of Prometheus, on PATH (for the tests)' ;;
        rabbitmq) say 'RabbitMQ (for the tests)' ;;
        iproute) say 'the command ip of iproute2 (for the tests)' ;;
        curl) say 'curl (for the tests)' ;;
        git) say 'git (for the tests)' ;;
        dpkg) say 'dpkg-deb (for the long tests)' ;;
        rpm) say 'rpmbuild (for the long tests)' ;;
        buildah) say 'buildah and debootstrap (for the long tests)' ;;
        wine) say 'Wine, a compiler for Windows (mingw-w64) and the headers of OpenSSL (for the long tests)' ;;
    esac
}

describe_all() { # parts... -> indented, one a line
    local part
    for part in "$@"; do say "  $(describe "$part")"; done
}

debian_packages() { # parts...
    local part
    for part in "$@"; do
        case $part in
            python) printf '%s\n' python3 python3-venv ;;
            venv) say "python$(python_version "$(find_python)")-venv" ;;
            apache) say apache2-bin ;; # the server without its system service
            swift) say python3-swift ;; # the code of its servers, without their services
            nginx) printf '%s\n' nginx libnginx-mod-http-dav-ext ;; # apt_install keeps the service from starting
            lighttpd) printf '%s\n' lighttpd lighttpd-mod-webdav ;;  # and this one
            firefox) say firefox-esr ;;
            promtool) say prometheus ;;      # and this one
            buildah) printf '%s\n' buildah debootstrap ;;
            wine) printf '%s\n' wine wine64 gcc-mingw-w64-x86-64-posix libssl-dev ;;
            rabbitmq) say rabbitmq-server ;; # and those of this one
            iproute) say iproute2 ;;
            *) say "$part" ;;
        esac
    done
}

redhat_choices() { # part -> the packages that bring it, the preferred one first
    case $1 in
        python) say 'python3.12 python3.11 python3' ;;
        venv) say "python$(python_version "$(find_python)")-libs python3-libs" ;;
        apache) say httpd ;;
        swift) say python3-swift ;;
        promtool) say golang-github-prometheus ;;
        rabbitmq) say rabbitmq-server ;;
        rpm) say rpm-build ;;
        *) say "$1" ;;
    esac
}

become_root() { # 0 when commands can run as root
    if [[ $(id -u) == 0 ]]; then return 0; fi
    works command -v sudo || return 1
    if ! works sudo -n true; then
        [[ -t 0 ]] || return 1
        sudo -v || return 1
    fi
    ROOT_PREFIX=(sudo)
}

as_root() { "${ROOT_PREFIX[@]}" env DEBIAN_FRONTEND=noninteractive "$@" </dev/null; }

services_of() { # Debian packages... -> the services that they bring, one a line
    local package
    for package in "$@"; do
        case $package in
            nginx | lighttpd | prometheus) say "$package.service" ;;
            rabbitmq-server) printf '%s\n' rabbitmq-server.service epmd.service epmd.socket ;; # epmd is Erlang's
        esac
    done
}

without_services() { # services, command...: root runs it; services that it brings start neither now nor at the next boot
    # shellcheck disable=SC2016
    as_root bash -c '
        policy=$1 services=$2 brought=()
        shift 2
        if command -v systemctl >/dev/null; then
            for service in $services; do # one that is enabled now is of the machine, and stays so
                if ! systemctl --quiet is-enabled "$service" 2>/dev/null; then brought+=("$service"); fi
            done
        fi
        if [[ ! -e $policy ]]; then
            trap "rm -f -- \"\$policy\"" EXIT
            printf "#!/bin/sh\nexit 101\n" >"$policy" && chmod 755 "$policy" || exit
        fi
        "$@" || exit
        for service in "${brought[@]}"; do systemctl --quiet disable "$service"; done
    ' bash "$POLICY" "$@"
}

apt_install() { # parts...; the log is in $WORK/system.log
    local packages services log=$WORK/system.log
    mapfile -t packages < <(debian_packages "$@")
    say "Installing system packages: ${packages[*]}"
    as_root apt-get update -q >"$log" 2>&1 || true # an old list may be good enough; the next step tells
    local install=(apt-get install -q -y --no-install-recommends "${packages[@]}")
    mapfile -t services < <(services_of "${packages[@]}")
    if ((${#services[@]})); then
        without_services "${services[*]}" "${install[@]}" >>"$log" 2>&1
    else
        as_root "${install[@]}" >>"$log" 2>&1
    fi
}

dnf_install() { # parts...
    local part package log=$WORK/system.log choices
    for part in "$@"; do
        read -r -a choices < <(redhat_choices "$part")
        say "Installing system packages: ${choices[0]}"
        for package in "${choices[@]}"; do
            if as_root dnf install -q -y "$package" >>"$log" 2>&1; then break; fi
        done
    done
}

by_hand() { # distribution, parts... -> the command that installs them
    local kind=$1 part choices packages=()
    shift
    if [[ $kind == debian ]]; then
        mapfile -t packages < <(debian_packages "$@")
        say "apt-get update && apt-get install -y ${packages[*]}"
        return
    fi
    for part in "$@"; do
        read -r -a choices < <(redhat_choices "$part")
        packages+=("${choices[0]}")
    done
    say "dnf install -y ${packages[*]}"
}

repository_hint() { # distribution, parts... -> where else to look, if there is something to say
    local kind=$1
    shift
    case $kind:" $* " in
        redhat:*' ffmpeg '*)
            say 'The base repositories have no ffmpeg with libx264 (ffmpeg-free is without it): enable RPM Fusion first.'
            ;;&
        redhat:*' chromium '*)
            say 'The base repositories of Red Hat have no Chromium: enable EPEL first.'
            ;;&
        redhat:*' swift '*)
            say 'The base repositories of Red Hat have no python3-swift: enable that of OpenStack (RDO) first.'
            ;;&
        redhat:*' nginx '*)
            say 'Red Hat has no module dav-ext for nginx: build nginx-dav-ext-module, or run the tests on Debian.'
            ;;&
        redhat:*' lighttpd '*)
            say 'The base repositories of Red Hat have no lighttpd: enable EPEL first.'
            ;;&
        redhat:*' promtool '*)
            say 'Red Hat has no promtool: put that of a Prometheus release on PATH.'
            ;;&
        redhat:*' rabbitmq '*)
            say 'The base repositories of Red Hat have no rabbitmq-server: enable that of RabbitMQ first.'
            ;;
        debian:*' python '*)
            say 'If this release has no Python 3.11: install one from another source, with python3.11 (or later) on PATH.'
            ;;&
        debian:*' chromium '* | debian:*' firefox '*)
            say 'Ubuntu has its browsers as snaps only: install Chromium and Firefox from another source, on PATH.'
            ;;
    esac
}

without_build() { # parts... -> those that a package can bring: a build in thirdparty/ would go before it
    local part
    for part in "$@"; do
        if [[ -z $(build_of "$part") ]]; then say "$part"; fi
    done
}

ensure_parts() { # parts... -> all there, or exit 3 with what is missing
    local missing words kind hint
    mapfile -t missing < <(missing_parts "$@")
    if ! ((${#missing[@]})); then return 0; fi
    kind=$(distribution)
    mapfile -t words < <(describe_all "${missing[@]}")
    if [[ $(without_build "${missing[@]}" | wc -l) != "${#missing[@]}" ]]; then
        fail "$EXIT_MISSING" 'not all that is needed is there:' "${words[@]}" 'A build in thirdparty/ goes before PATH: replace or remove it.'
    fi
    mapfile -t hint < <(repository_hint "$kind" "${missing[@]}")
    if [[ $kind == unknown ]]; then
        fail "$EXIT_MISSING" "cannot install packages on $(distribution_name). Please install by hand:" \
            "${words[@]}" 'then run this command again.'
    fi
    if ! become_root; then
        fail "$EXIT_MISSING" 'system packages are missing, and neither root nor sudo is at hand. Run as root:' \
            "$(by_hand "$kind" "${missing[@]}")" "${hint[@]}" 'then run this command again.'
    fi
    install_parts "$kind" "${missing[@]}" || true
    mapfile -t missing < <(missing_parts "$@")
    if ! ((${#missing[@]})); then return 0; fi
    show_tail "$WORK/system.log"
    mapfile -t words < <(describe_all "${missing[@]}")
    mapfile -t hint < <(repository_hint "$kind" "${missing[@]}")
    fail "$EXIT_MISSING" 'the package manager could not install:' \
        "${words[@]}" "${hint[@]}" \
        "Check that this machine reaches its package repositories, or install by hand: $(by_hand "$kind" "${missing[@]}")"
}

install_parts() { # distribution, parts...
    local kind=$1
    shift
    if [[ $kind == debian ]]; then apt_install "$@"; else dnf_install "$@"; fi
}
