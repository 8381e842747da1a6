#!/usr/bin/env bash
# Keeps folders of the work root from one job to the next, for a service that keeps only files in the checkout.
#   ci/keep.sh save|restore KEPT WORK_ROOT FOLDER...
set -euo pipefail

usage='usage: ci/keep.sh save|restore KEPT WORK_ROOT FOLDER...'
direction=${1:?$usage}
kept=${2:?$usage}
work_root=${3:?$usage}
shift 3
case $direction in
  save) from=$work_root to=$kept ;;
  restore) from=$kept to=$work_root ;;
  *)
    echo "$usage" >&2
    exit 2
    ;;
esac
umask 022 # the work root is refused if others can write to it
mkdir -p "$to"
for folder in "$@"; do
  [ -d "$from/$folder" ] || continue
  rm -rf "${to:?}/$folder"
  cp -R "$from/$folder" "$to/$folder"
done
