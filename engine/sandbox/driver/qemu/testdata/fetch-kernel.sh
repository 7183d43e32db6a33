#!/bin/sh
# Unpacks Debian's kernel for virtual machines below build/kernel, for the
# tests of engine/sandbox/driver/qemu. It is fetched with the machine's own
# package sources, whose signatures apt checks, and not installed.
set -eu
package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
[ -n "$package" ] || { echo "no linux-image-cloud-amd64 in the package lists" >&2; exit 1; }
rm -rf build/kernel build/kernel.new
mkdir -p build/kernel.new
(cd build/kernel.new && apt-get -q download "$package" && dpkg-deb -x ./*.deb . && rm ./*.deb)
mv build/kernel.new build/kernel
