#!/usr/bin/env bash
# Does everything that needs a GPU in one call: validates the wheel of the wheelhouse on it, checks the installation as a
# user would, measures, runs the gpu tests, and writes one report.
#   ci/validate_on_gpu.sh [--out FOLDER] [--stock-cuda WHEEL] [--stock-cpu WHEEL] [--quick] [--simulate CAPABILITY]
# --stock-cuda, --stock-cpu: baselines for the speed, wheels of ci/build_stock_wheel.sh.
# --quick: a small model for the measurement. --simulate 8.9: without a GPU; only shows that the script works.
# It needs the network; for a GPU without one: nox -s gpu_kit (docs/gpu_kit.md).
# Every part runs even if an earlier one failed; the status is 0 if all passed.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
out=$PWD/gpu-report simulate='' stock_cuda='' stock_cpu='' model=1b
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2; shift 2 ;;
    --stock-cuda) stock_cuda=$2; shift 2 ;;
    --stock-cpu) stock_cpu=$2; shift 2 ;;
    --quick) model=small; shift ;;
    --simulate) simulate=$2; shift 2 ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
command -v nox >/dev/null || { echo "nox is missing: python -m pip install nox" >&2; exit 1; }
mkdir -p "$out"
report=$out/report.md
failed=0

part() { # name, then the command
  local name=$1 log status
  shift
  log=$out/$name.txt
  printf '\n=== %s: %s\n' "$name" "$*"
  "$@" 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  [ "$status" = 0 ] || failed=1
  {
    printf '\n## %s: %s\n\n' "$name" "$([ "$status" = 0 ] && echo passed || echo "FAILED, status $status")"
    printf '`%s`\n\n```\n' "$*"
    sed -e 's/\x1b\[[0-9;]*m//g' -e "s#$PWD#<checkout>#g" -e "s#$out#<out>#g" "$log"
    printf '```\n'
  } >>"$report"
}

{
  if [ -n "$simulate" ]; then
    printf '# SIMULATED GPU %s: no kernel ran, and no figure says anything about speed\n\n' "$simulate"
  else
    printf '# On a GPU\n\n'
  fi
  printf '%s, commit %s.\n' "$(date -u +%F)" "$(git rev-parse HEAD 2>/dev/null || echo unknown)"
} >"$report"

environment=$out/environment
rm -rf "$environment"
python3 -m venv "$environment"
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check --find-links wheelhouse \
  --only-binary llama-cpp-python llama-cpp-python || failed=1

part doctor nox -s doctor
if [ -n "$simulate" ]; then
  part validate nox -s validate -- --simulate "$simulate"
  part check_gpu nox -s simulate -- "$simulate" -- "$PWD/.nox/simulate/bin/python" -m build_config check_gpu \
    --python "$environment/bin/python"
  part bench nox -s bench -- device --simulate "$simulate" --synthetic "$model" --out "$out/bench"
else
  part validate nox -s validate -- --require-gpu
  part check_gpu nox -s check_gpu -- --python "$environment/bin/python"
  part bench nox -s bench -- device --synthetic "$model" --out "$out/bench"
  [ -z "$stock_cuda" ] || part bench-stock-cuda nox -s bench -- device --synthetic "$model" --against "$stock_cuda" \
    --out "$out/bench-stock-cuda"
  part tests nox -s tests -- -m gpu --require-gpu
fi
[ -z "$stock_cpu" ] || part bench-stock-cpu nox -s bench -- device --synthetic "$model" --against "$stock_cpu" \
  --out "$out/bench-stock-cpu"
part upstream_tests nox -s upstream_tests

printf '\nreport: %s\n' "$report"
[ "$failed" = 0 ] && echo "all parts passed" || echo "a part failed"
exit "$failed"
