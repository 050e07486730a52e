#!/bin/sh
# Install the system packages that a build and its tests need, and those that are named; say nothing to apt when none is
# missing.
# Debian 12 and Ubuntu 24.04 call them by the same names.
set -eu

# Building pyfuse3, which ships as source:     gcc libc6-dev pkg-config libfuse3-dev python3-dev
# Making a virtual environment:                python3 python3-venv
# Mounting without being root (fusermount3):   fuse3
# Tracing where our tracer was not compiled:   strace
# Used by tests and benchmarks:                attr restic zstd; systemd for systemd-analyze
wanted="attr fuse3 gcc libc6-dev libfuse3-dev pkg-config python3 python3-dev python3-venv restic strace systemd zstd $*"

missing=""
for package in $wanted; do
    dpkg -s "$package" 2>/dev/null | grep -q '^Status: .* installed$' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

echo "setup: installing system packages:$missing"
if ! command -v apt-get >/dev/null; then
    echo "setup: no apt-get here; install what your system calls$missing and try again" >&2
    exit 1
fi
as_root=""
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "setup: be root or install sudo, then try again" >&2; exit 1; }
    as_root="sudo"
fi
# sudo drops the environment, so the variable goes through env.
$as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
# shellcheck disable=SC2086  # the list is split on purpose
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing
