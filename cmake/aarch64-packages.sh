#!/usr/bin/env bash
# Unpack the arm64 packages that the aarch64 preset needs, and cross packages do not bring, into
# .cache/aarch64. Nothing is installed and this machine's list of architectures stays as it is:
# apt works on lists of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly out=$PWD/.cache/aarch64 apt=$PWD/.cache/aarch64-apt
[[ -f $out/usr/include/cmocka.h && -f $out/usr/include/jansson.h ]] && exit

rm -rf "$out" "$out.part" "$apt"
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$out.part"
cat >"$apt/apt.conf" <<END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "$(id -un)";
Dir::State "$apt";
Dir::State::status "/dev/null";
Dir::Cache "$apt/cache";
END
export APT_CONFIG=$apt/apt.conf
# Somebody else's source may know no arm64 or be away: whether the download succeeds counts.
apt-get update -qq || true
(cd "$apt" && apt-get download -qq libcmocka-dev libcmocka0 libjansson-dev libjansson4 \
    libpcre2-dev libpcre2-8-0)
for package in "$apt"/*.deb; do
    dpkg-deb --extract "$package" "$out.part"
done
mv "$out.part" "$out"
rm -rf "$apt"
