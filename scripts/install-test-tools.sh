#!/usr/bin/env bash
# What the tests need beyond npm, on Debian or Ubuntu: redis-server. Does nothing where it is present; where it cannot be
# installed, says what is missing and the command that installs it. Exits 0 only when everything is there.
set -euo pipefail

# Prints the packages whose programs are not on PATH.
missing_packages() {
  if ! command -v redis-server >/dev/null || ! command -v redis-cli >/dev/null; then echo redis-server; fi
}

give_up() {
  echo "missing for the tests: $1" >&2
  echo "install with: sudo apt-get install --no-install-recommends $1 (or your system's own way)" >&2
  exit 1
}

packages=$(missing_packages | xargs)
[ -z "$packages" ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo -n); fi
command -v apt-get >/dev/null || give_up "$packages"
"${as_root[@]}" true 2>/dev/null || give_up "$packages"

# The package would start a server of its own; the tests start theirs.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap '"${as_root[@]}" rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod +x "$policy"
fi
"${as_root[@]}" apt-get update -qq
# Word splitting wanted: one word is one package.
# shellcheck disable=SC2086
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages

packages=$(missing_packages | xargs)
[ -z "$packages" ] || give_up "$packages"
