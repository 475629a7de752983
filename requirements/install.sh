#!/bin/sh
# Usage: install.sh VENV WHAT
#
# Makes the virtual environment VENV if there is none, and installs WHAT (`.` or `.[dev,docs]`) into it, editable, with
# the versions of lock.txt. A torch of at least 2.11 that PYTHON already has is used as it is; otherwise torch.txt says
# which one to get. PIP_FLAGS are passed to pip.
set -eu

venv=$1
what=$2
here=$(dirname "$0")
python=${PYTHON:-python3}

fail() {
    echo "error: $1" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "no '$python' on the PATH; name a Python 3.11 or newer: make PYTHON=python3.12 ..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old, 3.11 is needed; name another: make PYTHON=python3.12 ..."

if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "this Python cannot make virtual environments; on Debian and Ubuntu: sudo apt install python3-venv"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi

base=$("$python" - <<'END'
from importlib.metadata import PackageNotFoundError, distribution

try:
    torch = distribution("torch")
    major, minor = (int(part) for part in torch.version.split(".")[:2])
    print(torch.locate_file("") if (major, minor) >= (2, 11) else "")
except PackageNotFoundError:
    print("")
END
)
own=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
torch="--constraint $here/torch.txt"
if [ -n "$base" ] && [ "$base" != "$own" ]; then
    echo "using the torch in $base"
    echo "$base" >"$own/base-torch.pth"
    torch=
fi

# shellcheck disable=SC2086  # both are lists of flags
set -- --quiet --disable-pip-version-check --constraint "$here/lock.txt" $torch ${PIP_FLAGS:-}
echo "installing $what into $venv (the first time this downloads several hundred MB)"
"$venv/bin/python" -m pip install "$@" setuptools
"$venv/bin/python" -m pip install "$@" --no-build-isolation --editable "$what"
