# Sourced by tools/test and tools/demo: brings uv, the environments and Mosquitto to a bare Debian.
# Everything lies below the checkout (.tools, .venv, .venv-tflite); with root, Debian packages are installed.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.tools/bin:$PATH:/usr/sbin"
export UV_PYTHON_DOWNLOADS=never # the python3 that is here is the one that is tested
export UV_PROJECT_ENVIRONMENT=.venv

headline() { printf '\n== %s\n' "$*"; }

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    # the lists may be old or absent; one mirror that does not answer must not end it
    apt-get update -qq >/dev/null || true
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

require_python() {
    command -v python3 >/dev/null || fail "python3 is missing; expected Python 3.11 to 3.13; install it"
    python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' ||
        fail "found $(python3 --version); expected Python 3.11 to 3.13; install one of these as python3"
    UV_PYTHON="${UV_PYTHON:-$(python3 -c 'import sys; print(sys.executable)')}"
    export UV_PYTHON
}

# uv from PATH, else from the package index into a private environment.
ensure_uv() {
    if ! command -v uv >/dev/null || ! uv --version >/dev/null 2>&1; then
        headline "Install uv into .tools"
        if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
            is_root || fail "python3 has no venv; expected it, or uv on PATH; install python3-venv"
            apt_install python3-venv
        fi
        python3 -m venv .tools/uv
        .tools/uv/bin/python -m pip install --quiet --disable-pip-version-check uv
        mkdir -p .tools/bin
        ln -sf ../uv/bin/uv .tools/bin/uv
    fi
    uv --version
}

# Debian's Mosquitto and its clients: those on PATH, else installed, else unpacked below .tools.
ensure_mosquitto() {
    if command -v mosquitto >/dev/null && command -v mosquitto_sub >/dev/null; then
        return
    fi
    if command -v apt-get >/dev/null; then
        if is_root; then
            headline "Install mosquitto with apt"
            apt_install mosquitto mosquitto-clients || echo "apt could not install mosquitto"
        else
            headline "Unpack mosquitto into .tools (no root)"
            unpack_mosquitto || echo "mosquitto could not be fetched"
        fi
    fi
    # the clients are for people: nothing of nanotox needs them
    command -v mosquitto >/dev/null ||
        fail "mosquitto is not on PATH; expected Eclipse Mosquitto 2; install it (Debian: apt install mosquitto)"
}

# The browser that drives the dashboard; its tests skip where it cannot be had.
ensure_chromium() {
    if ! command -v chromium >/dev/null && command -v apt-get >/dev/null && is_root; then
        headline "Install chromium with apt"
        apt_install chromium || echo "apt could not install chromium: its tests will skip"
    fi
}

# The checker of unit files; the tests that need it skip where it cannot be had.
ensure_systemd_analyze() {
    if ! command -v systemd-analyze >/dev/null && command -v apt-get >/dev/null && is_root; then
        headline "Install systemd-analyze with apt"
        apt_install systemd || echo "apt could not install systemd: its tests will skip"
    fi
}

unpack_mosquitto() {
    local store="$PWD/.tools/mosquitto" packages libraries apt_options=()
    mkdir -p "$store/debs" "$store/lists/partial" .tools/bin
    if ! apt-cache show mosquitto >/dev/null 2>&1; then
        # lists of our own: those of the system are root's
        apt_options=(-o "Dir::State::lists=$store/lists" -o "Dir::Cache=$store" -o Debug::NoLocking=1)
        apt-get "${apt_options[@]}" update -qq >/dev/null || true
    fi
    packages=$(apt-get "${apt_options[@]}" --simulate install --no-install-recommends \
        mosquitto mosquitto-clients |
        awk '/^Inst / { print $2 }') || return 1
    [ -n "$packages" ] || return 1
    # shellcheck disable=SC2086 # a list of names
    (cd "$store/debs" && apt-get "${apt_options[@]}" download -qq $packages) || return 1
    for deb in "$store"/debs/*.deb; do
        dpkg -x "$deb" "$store"
    done
    libraries=$(find "$store" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)
    for program in sbin/mosquitto bin/mosquitto_sub bin/mosquitto_pub; do
        [ -x "$store/usr/$program" ] || continue
        printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$@"\n' "$libraries" "$store/usr/$program" \
            >".tools/bin/${program#*/}"
        chmod +x ".tools/bin/${program#*/}"
    done
}
