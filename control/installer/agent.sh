#!/usr/bin/env bash
# Installs, upgrades or removes the LOX Backup agent. Served by a LOX server, and filled in by it.
#
# Everything is in functions and the last line calls them: of a download that was cut off nothing runs.
# It is safe to run again: that is an upgrade. It never overwrites /etc/lox-agent/config.yaml.
set -euo pipefail

settings() {
    SERVER_URL='@SERVER_URL@'
    VERSION='@VERSION@'
    MANIFEST_KEY='@MANIFEST_KEY@'
    CA_CERTIFICATE='@CA_CERTIFICATE@'
    MIN_PYTHON_MINOR=11
}

usage() {
    cat <<'TEXT'
usage: bash agent.sh --api-url URL --agent-uuid UUID [--token TOKEN | --token-file FILE] [options]

  --api-url URL       the server
  --agent-uuid UUID   which agent this host is to be
  --token TOKEN       the registration token; better: LOX_TOKEN in the environment, or
  --token-file FILE   a file that holds it
  --dry-run           say what would be done, and change nothing
  --no-start          install, but start nothing
  --version VERSION   only if the server offers exactly this version
  --offline DIR       take the manifest and the wheels from DIR
  --root DIR          install below DIR (an image), start nothing
  --python FILE       the Python to use (3.11 or newer)
  --uninstall         remove the program and its service; keep settings, credential and keys
  --purge             with --uninstall: remove these too. Without its keys no encrypted backup can be read
TEXT
}

say() { printf '%s\n' "lox-agent: $*"; }
fail() { printf '%s\n' "lox-agent: error: $*" >&2; exit 1; }

parse() {
    API_URL='' AGENT_UUID='' TOKEN="${LOX_TOKEN:-}" WANTED='' OFFLINE='' ROOT='' PYTHON=''
    DRY_RUN=no START=yes UNINSTALL=no PURGE=no
    while [ $# -gt 0 ]; do
        case "$1" in
            --api-url | --agent-uuid | --token | --token-file | --version | --offline | --root | --python)
                [ $# -ge 2 ] || fail "$1 needs a value (see --help)" ;;
        esac
        case "$1" in
            --api-url) API_URL="${2%/}"; shift 2 ;;
            --agent-uuid) AGENT_UUID="$2"; shift 2 ;;
            --token) TOKEN="$2"; shift 2 ;;
            --token-file) TOKEN="$(cat -- "$2")"; shift 2 ;;
            --version) WANTED="$2"; shift 2 ;;
            --offline) OFFLINE="$2"; shift 2 ;;
            --root) ROOT="${2%/}"; START=no; shift 2 ;;
            --python) PYTHON="$2"; shift 2 ;;
            --dry-run) DRY_RUN=yes; shift ;;
            --no-start) START=no; shift ;;
            --uninstall) UNINSTALL=yes; shift ;;
            --purge) PURGE=yes; shift ;;
            --help | -h) usage; exit 0 ;;
            *) fail "unknown option $1 (see --help)" ;;
        esac
    done
}

check_arguments() {
    [ "$UNINSTALL" = yes ] && return 0
    [ "$PURGE" = no ] || fail "--purge goes with --uninstall"
    if [ -z "$API_URL" ] || [ -z "$AGENT_UUID" ]; then usage >&2; exit 2; fi
    local url='^https://[][A-Za-z0-9._:-]+$'
    [[ $API_URL =~ $url ]] || fail "--api-url must be https://HOST[:PORT], not $API_URL"
    [[ $AGENT_UUID =~ ^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$ ]] || fail "--agent-uuid is not a UUID"
    [ -z "$TOKEN" ] || [[ $TOKEN =~ ^lox_agt_[A-Za-z0-9_-]+$ ]] || fail "the token must look like lox_agt_..."
    [ -z "$WANTED" ] || [ "$WANTED" = "$VERSION" ] || fail "the server offers version $VERSION, not $WANTED"
}

# The text may come through a pipe, so what is run as root is made of the functions themselves. The token goes
# through the environment of a shell of root, not through its arguments.
elevate() {
    [ "$(id -u)" -ne 0 ] && [ -z "$ROOT" ] && [ "$DRY_RUN" = no ] || return 0
    command -v sudo >/dev/null || fail "run this as root"
    say "asking for root's rights"
    { printf 'LOX_TOKEN=%q\n' "$TOKEN"; declare -f; printf 'set -euo pipefail\n{ main "$@"; exit; }\n'; } |
        sudo bash -s -- "${ARGUMENTS[@]}"
    exit
}

check_system() {
    KERNEL="$(uname -s)" MACHINE="$(uname -m)"
    case "$KERNEL" in
        Linux) PLATFORM='*linux*' ;;
        Darwin) PLATFORM='macosx*' ;;
        *) fail "this script is for Linux and macOS; this is $KERNEL" ;;
    esac
    case "$MACHINE" in
        x86_64 | amd64) MACHINE=x86_64 ;;
        aarch64 | arm64) MACHINE='a*64' ;;
        *) fail "there are no packages for machines of kind $MACHINE" ;;
    esac
    [ -n "$OFFLINE" ] || command -v curl >/dev/null || fail "curl is missing"
    find_python
    find_openssl
}

find_python() {
    local name
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        command -v "$name" >/dev/null || continue
        "$name" -c "import sys; sys.exit(sys.version_info < (3, $MIN_PYTHON_MINOR))" || continue
        "$name" -c 'import ensurepip, venv' 2>/dev/null ||
            fail "$name cannot make environments: install its venv package (Debian, Ubuntu: apt install python3-venv)"
        PYTHON="$(command -v "$name")"
        PYTHON_TAG="$("$PYTHON" -c 'import sys; print("cp3%d" % sys.version_info[1])')"
        return 0
    done
    fail "Python 3.$MIN_PYTHON_MINOR or newer is missing (--python FILE if it is not on the PATH)"
}

# Only OpenSSL 3 checks Ed25519 signatures; the one of macOS does not.
find_openssl() {
    local name
    for name in openssl /opt/homebrew/opt/openssl@3/bin/openssl /usr/local/opt/openssl@3/bin/openssl; do
        command -v "$name" >/dev/null || continue
        case "$("$name" version)" in "OpenSSL "[3-9]*) OPENSSL="$name"; return 0 ;; esac
    done
    fail "OpenSSL 3 is missing: without it nothing that is downloaded can be trusted"
}

# fetch NAME: into the work folder, from the server or from the folder of --offline.
fetch() {
    if [ -n "$OFFLINE" ]; then cp -- "$OFFLINE/$1" "$WORK/$1" || fail "$OFFLINE holds no $1"; return 0; fi
    curl --fail --silent --show-error --proto '=https' --retry 3 --max-time 1800 \
        ${CA_FILE:+--cacert "$CA_FILE"} --output "$WORK/$1" "$SERVER_URL/files/$1" || fail "cannot download $SERVER_URL/files/$1"
}

fetch_manifest() {
    CA_FILE="${CA_CERTIFICATE:+$WORK/ca.pem}"
    [ -z "$CA_FILE" ] || printf '%s\n' "$CA_CERTIFICATE" >"$CA_FILE"
    fetch manifest.txt
    fetch manifest.sig
    printf '%s\n' "$MANIFEST_KEY" >"$WORK/key.pem"
    "$OPENSSL" pkeyutl -verify -pubin -inkey "$WORK/key.pem" -rawin -in "$WORK/manifest.txt" \
        -sigfile "$WORK/manifest.sig" >/dev/null 2>&1 || fail "the manifest is not signed by this server: nothing was installed"
    [ "$(sed -n 1p "$WORK/manifest.txt")" = "lox-agent-files 1" ] || fail "the manifest is of a kind this script does not know"
    [ "$(sed -n 2p "$WORK/manifest.txt")" = "version $VERSION" ] ||
        fail "the manifest is of another version than this script ($VERSION): download the script again"
}

# Of the wheels listed, those for this machine and this Python: as requirements with their hashes.
choose_files() {
    local word sum size name stem rest total=0
    : >"$WORK/requirements.txt"
    FILES=()
    while read -r word sum size name; do
        [ "$word" = file ] || continue
        [[ $name =~ ^[A-Za-z0-9_.+-]+\.whl$ && $sum =~ ^[0-9a-f]{64}$ && $size =~ ^[0-9]+$ ]] || fail "the manifest is damaged: $name"
        stem="${name%.whl}" # NAME-VERSION[-BUILD]-PYTHON-ABI-PLATFORM
        rest="${stem%-*-*}"
        fits "${rest##*-}" "${stem#"$rest"-}" || continue
        FILES+=("$name")
        total=$((total + size))
        rest="${stem#*-}"
        printf '%s==%s --hash=sha256:%s\n' "${stem%%-*}" "${rest%%-*}" "$sum" >>"$WORK/requirements.txt"
    done <"$WORK/manifest.txt"
    [ ${#FILES[@]} -gt 0 ] || fail "the server has no packages for this machine ($KERNEL $MACHINE, $PYTHON_TAG)"
    grep -q '^lox_backup==' "$WORK/requirements.txt" || fail "the server has no lox-backup for this machine ($KERNEL $MACHINE, $PYTHON_TAG)"
    KILOBYTES=$((total / 1024))
}

fits() {
    local python="$1" abi="${2%%-*}" platform="${2#*-}"
    # shellcheck disable=SC2254 # these are patterns
    case "$platform" in
        *musllinux*) return 1 ;;
        any | $PLATFORM$MACHINE* | ${PLATFORM}universal2*) ;;
        *) return 1 ;;
    esac
    case "$python" in
        py3 | py2.py3 | "$PYTHON_TAG" | "py${PYTHON_TAG#cp}") return 0 ;;
        cp3*) [ "$abi" = abi3 ] && [ "${python#cp3}" -le "${PYTHON_TAG#cp3}" ] ;;
        *) return 1 ;;
    esac
}

check_room() {
    local place="$ROOT/opt" free
    while [ ! -d "$place" ]; do place="$(dirname "$place")"; done
    free="$(df -Pk "$place" | { read -r _ && read -r _ _ _ free _ && printf '%s' "$free"; })"
    [ "$free" -gt $((KILOBYTES * 5)) ] || fail "$place has $free KiB free; $((KILOBYTES * 5)) are needed"
}

install_program() {
    local name
    if [ -e "$TARGET/.complete" ] && cmp -s "$WORK/manifest.txt" "$TARGET/.complete"; then
        say "version $VERSION is installed"
    else
        mkdir "$WORK/wheels"
        for name in "${FILES[@]}"; do
            fetch "$name"
            mv "$WORK/$name" "$WORK/wheels/"
        done
        rm -rf -- "$TARGET"
        mkdir -p "$TARGET"
        chmod 755 "$ROOT/opt/lox-agent" "$ROOT/opt/lox-agent/versions" "$TARGET"
        "$PYTHON" -m venv "$TARGET"
        "$TARGET/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-cache-dir --no-index --no-deps \
            --find-links "$WORK/wheels" --require-hashes -r "$WORK/requirements.txt" || fail "the packages could not be installed"
        relocate
        cp "$WORK/manifest.txt" "$TARGET/.complete"
    fi
    point "$ROOT/opt/lox-agent/current" "versions/$VERSION"
    mkdir -p "$ROOT/usr/local/bin"
    for name in lox lox-agent; do
        point "$ROOT/usr/local/bin/$name" "/opt/lox-agent/current/bin/$name"
    done
}

# What was installed below --root must run when that is the root.
relocate() {
    [ -n "$ROOT" ] || return 0
    local file
    for file in "$TARGET/pyvenv.cfg" "$TARGET"/bin/*; do
        [ -L "$file" ] || { sed -i.bak "s|$ROOT/opt/lox-agent|/opt/lox-agent|g" "$file" && rm -f -- "$file.bak"; }
    done
}

# point LINK TO: make or move a symbolic link in one step. mv would move it into the folder that the old one points to.
point() {
    rm -f -- "$1.new"
    ln -s "$2" "$1.new"
    "$PYTHON" -c 'import os, sys; os.replace(*sys.argv[1:])' "$1.new" "$1"
}

write_settings() {
    local folder="$ROOT/etc/lox-agent"
    mkdir -p "$folder/hooks.d" "$ROOT/var/lib/lox-agent" "$ROOT/var/log/lox-agent"
    chmod 755 "$folder" "$folder/hooks.d"
    chmod 700 "$ROOT/var/lib/lox-agent" "$ROOT/var/log/lox-agent"
    if [ -n "$CA_CERTIFICATE" ]; then
        printf '%s\n' "$CA_CERTIFICATE" >"$folder/ca.pem.new"
        chmod 644 "$folder/ca.pem.new"
        mv -f "$folder/ca.pem.new" "$folder/ca.pem"
    fi
    [ ! -e "$folder/config.yaml" ] || { say "$folder/config.yaml is there and stays as it is"; return 0; }
    [ -n "$TOKEN" ] || fail "a first installation needs --token, --token-file or LOX_TOKEN"
    {
        printf '# Settings of the LOX Backup agent. All there are: lox-agent config show\n'
        printf 'api_url: %s\nagent_uuid: %s\nregistration_token: %s\n' "$API_URL" "$AGENT_UUID" "$TOKEN"
        [ -z "$CA_CERTIFICATE" ] || printf 'ca_file: /etc/lox-agent/ca.pem\n'
    } >"$folder/config.yaml.new" # umask 077
    mv "$folder/config.yaml.new" "$folder/config.yaml"
}

install_service() {
    local place="$ROOT/etc/systemd/system" name=lox-agent.service shipped
    [ "$KERNEL" != Darwin ] || place="$ROOT/Library/LaunchDaemons" name=com.lox.backup.agent.plist
    shipped="$(find "$TARGET" -path "*/configs/*/$name" | head -n 1)"
    [ -n "$shipped" ] || fail "the package holds no $name"
    mkdir -p "$place"
    install -m 644 "$shipped" "$place/$name"
}

start_service() {
    [ "$START" = yes ] || { say "installed; nothing was started"; return 0; }
    if [ "$KERNEL" = Darwin ]; then
        stop_service
        launchctl bootstrap system /Library/LaunchDaemons/com.lox.backup.agent.plist
    elif [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        systemctl enable --quiet lox-agent
        systemctl restart lox-agent
    else say "installed; systemd does not run here: start it by lox-agent run"; return 0; fi
    say "started; look at it by lox-agent status"
}

stop_service() {
    [ -z "$ROOT" ] || return 0
    if [ "$KERNEL" = Darwin ]; then
        launchctl bootout system/com.lox.backup.agent 2>/dev/null || true
    elif [ -d /run/systemd/system ]; then
        systemctl disable --now --quiet lox-agent 2>/dev/null || true
    fi
}

uninstall() {
    local gone=("$ROOT/etc/systemd/system/lox-agent.service" "$ROOT/Library/LaunchDaemons/com.lox.backup.agent.plist"
        "$ROOT/usr/local/bin/lox-agent" "$ROOT/usr/local/bin/lox" "$ROOT/opt/lox-agent") path
    KERNEL="$(uname -s)"
    [ "$PURGE" = no ] || gone+=("$ROOT/etc/lox-agent" "$ROOT/var/lib/lox-agent" "$ROOT/var/log/lox-agent")
    [ "$DRY_RUN" = yes ] || stop_service
    for path in "${gone[@]}"; do
        [ -e "$path" ] || [ -L "$path" ] || continue
        [[ $path != */bin/* || $(readlink "$path") == /opt/lox-agent/* ]] || continue # somebody else's
        say "remove $path"
        [ "$DRY_RUN" = yes ] || rm -rf -- "$path"
    done
    [ "$PURGE" = yes ] || say "/etc/lox-agent and /var/lib/lox-agent (with the keys) stay; --purge removes them"
}

tell_plan() {
    say "would install version $VERSION for $KERNEL, $MACHINE, $PYTHON_TAG: ${#FILES[@]} packages, $KILOBYTES KiB"
    say "would use $PYTHON and put the program into $ROOT/opt/lox-agent/versions/$VERSION"
    local config="$ROOT/etc/lox-agent/config.yaml" what="for agent $AGENT_UUID of $API_URL"
    if [ -e "$config" ]; then say "would leave $config as it is"; else say "would write $config $what"; fi
    say "would install the service"
    [ "$START" = no ] || say "would start it"
}

main() {
    ARGUMENTS=("$@")
    settings
    parse "$@"
    check_arguments
    elevate
    umask 077
    [ "$UNINSTALL" = no ] || { uninstall; return 0; }
    WORK="$(mktemp -d)"
    trap 'rm -rf -- "$WORK"' EXIT
    check_system
    fetch_manifest
    choose_files
    check_room
    [ "$DRY_RUN" = no ] || { tell_plan; return 0; }
    TARGET="$ROOT/opt/lox-agent/versions/$VERSION"
    (umask 022 && install_program)
    write_settings
    install_service
    start_service
}

{ main "$@"; exit; }
