#!/bin/sh
# Makes the virtual environment named by the first argument and installs NEATPy with everything it can use.
# PYTHON chooses the interpreter; without it, the newest one of version 3.11 or later that is found is taken.
# pip is used as this host has configured it.
set -eu
venv=$1

suitable() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11) or sys.version_info.releaselevel != "final")' 2>/dev/null
}

find_python() {
    for name in python3.14 python3.13 python3.12 python3.11 python3 python; do
        if command -v "$name" >/dev/null && suitable "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

if [ -n "${PYTHON:-}" ]; then
    suitable "$PYTHON" || { echo "$PYTHON is no Python 3.11 or later" >&2; exit 1; }
    python=$PYTHON
else
    python=$(find_python) || { echo "No Python 3.11 or later was found; name one with make PYTHON=..." >&2; exit 1; }
fi

# Debian and its relatives package venv and pip's installer apart from Python.
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    package=python$version-venv
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing $package"
        export DEBIAN_FRONTEND=noninteractive
        apt-get install -qq --yes --no-install-recommends "$package" >/dev/null 2>&1 ||
            { apt-get update -qq && apt-get install -qq --yes --no-install-recommends "$package" >/dev/null; } || true
    fi
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        echo "$python cannot make virtual environments: install $package, or name another with make PYTHON=..." >&2
        exit 1
    fi
fi

if [ -x "$venv/bin/python" ] && [ -n "${PYTHON:-}" ] &&
    [ "$("$venv/bin/python" -c 'import sys; print(sys.version)')" != "$("$python" -c 'import sys; print(sys.version)')" ]
then
    rm -rf "$venv"
fi
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "Making $venv with $("$python" --version)"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi
echo "Installing NEATPy and its tools into $venv"
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --editable '.[all,dev]'
