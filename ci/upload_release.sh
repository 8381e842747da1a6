#!/usr/bin/env bash
# Uploads the wheelhouse's wheels and the files next to them to the release of a tag, and makes the release if it is missing.
#   ci/upload_release.sh TAG FOLDER
# Needs gh, and GH_TOKEN with the right to write contents. An existing file is never replaced.
set -euo pipefail

tag=${1:?usage: ci/upload_release.sh TAG FOLDER}
folder=${2:?usage: ci/upload_release.sh TAG FOLDER}
gh release view "$tag" >/dev/null 2>&1 || gh release create "$tag" --verify-tag --title "$tag" --notes-file CHANGELOG.md
gh release upload "$tag" "$folder"/*.whl*
