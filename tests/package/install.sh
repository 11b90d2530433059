#!/usr/bin/env bash
# Installs the build, moves the tree to another place, and shows that nothing in it that a
# build would read names the old place, the sources or the build.
source "$(dirname "$0")/common.sh"

rm -rf "$PACKAGE_WORK/installed" "$prefix"
"$PACKAGE_CMAKE" --install "$PACKAGE_BUILD" --prefix "$PACKAGE_WORK/installed" >/dev/null
mv "$PACKAGE_WORK/installed" "$prefix"

if grep -rIl -e "$PACKAGE_SOURCE" -e "$PACKAGE_BUILD" "$prefix"; then
    fail "the files above name the place where they were built"
fi
[[ -x $libdir/kernelry/kernelry-probe ]] || fail "kernelry-probe is not beside the library"
for file in "$prefix"/bin/* "$libdir"/*.so* "$libdir"/kernelry/kernelry-probe \
    "$libdir"/kernelry/plugins/*.so; do
    if readelf -d "$file" | grep -E 'R(UN)?PATH' | grep -v 'ORIGIN'; then
        fail "$file: its run path names a fixed place"
    fi
done
