#!/usr/bin/env bash
# Lets users have namespaces where Ubuntu's AppArmor denies them: compilers then have no network, and a second build a
# root of its own. Changes nothing on a system that does not know the setting.
set -euo pipefail

setting=kernel.apparmor_restrict_unprivileged_userns
[ -e "/proc/sys/${setting//.//}" ] || exit 0
sudo sysctl -w "$setting=0"
