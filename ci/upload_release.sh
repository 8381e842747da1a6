#!/usr/bin/env bash
# Puts the wheelhouse's wheels and the files beside them into the release of a tag, which is made where it is missing.
#   ci/upload_release.sh TAG FOLDER
# Needs gh, and GH_TOKEN with the right to write contents. A file that is there already is never replaced.
set -euo pipefail

tag=${1:?usage: ci/upload_release.sh TAG FOLDER}
folder=${2:?usage: ci/upload_release.sh TAG FOLDER}
gh release view "$tag" >/dev/null 2>&1 || gh release create "$tag" --verify-tag --title "$tag" --notes-file CHANGELOG.md
gh release upload "$tag" "$folder"/*.whl*
