#!/bin/sh
# Bring .venv up to date: system packages, locked dependencies, this checkout.  Does nothing when it already is.
set -eu
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"

key_of() { cat "$@" | sha256sum; }
is_current() { [ -x .venv/bin/python ] && [ "$(cat ".venv/$1" 2>/dev/null)" = "$2" ]; }

# What decides which packages .venv holds.  The path is in it because scripts in a venv name their own place.
packages_key="$(pwd) $(key_of requirements-dev.lock packaging/system_packages.sh packaging/setup.sh)"
# What decides how this checkout is seen in it: entry points, commands, and what is compiled for it.
checkout_key="$(key_of pyproject.toml packaging/build_hook.py packaging/tv.py plugins/tvplugins/tracer/native/*.[ch] taskvault/*/native/*.[ch])"

if ! is_current packages-key "$packages_key"; then
    packaging/system_packages.sh
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "setup: $python is older than 3.11; name a newer one: make setup PYTHON=python3.12" >&2
        exit 1
    }
    echo "setup: making .venv with $("$python" --version)"
    # --clear: packages that left the lock file must leave the environment too.
    "$python" -m venv --clear .venv
    echo "setup: installing the locked dependencies (a minute or two; pyfuse3 is compiled)"
    .venv/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.lock
    printf '%s\n' "$packages_key" > .venv/packages-key
fi

if ! is_current checkout-key "$checkout_key"; then
    echo "setup: installing taskvault from this checkout"
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
    # What cannot be compiled is left out, and pip says nothing of it.
    .venv/bin/python packaging/build_hook.py ||
        echo "setup: what is native is left out; Python and strace do it instead, slower" >&2
    printf '%s\n' "$checkout_key" > .venv/checkout-key
    echo "setup: done"
fi
