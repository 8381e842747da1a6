#!/usr/bin/env bash
# Lets users create namespaces although Ubuntu's AppArmor denies them: for compilers without a network, and for a second
# build with its own work root. Changes nothing on a system without this setting.
set -euo pipefail

setting=kernel.apparmor_restrict_unprivileged_userns
[ -e "/proc/sys/${setting//.//}" ] || exit 0
sudo sysctl -w "$setting=0"
