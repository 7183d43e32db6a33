#!/bin/sh
# Unpacks SQLCipher 4.6.1 of Debian's next release beside this machine's own
# libraries and writes a wrapper that runs it through its own loader, for the
# interoperability tests (decisions D12). Nothing is installed.
#   fetch-sqlcipher.sh [folder, default build/sqlcipher]
set -eu
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
[ -n "$mirror" ] || { echo "apt knows no mirror" >&2; exit 1; }
to=$(mkdir -p "${1:-build/sqlcipher}" && cd "${1:-build/sqlcipher}" && pwd)
apt=$to/apt
mkdir -p "$apt/etc/apt.conf.d" "$apt/etc/preferences.d" "$apt/lists/partial" "$apt/archives/partial" "$apt/debs" "$to/root"
: > "$apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > "$apt/etc/sources.list"
cat > "$apt/apt.conf" <<END
Dir::Etc "$apt/etc";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Acquire::Languages "none";
END
export APT_CONFIG="$apt/apt.conf"
apt-get -qq update
(cd "$apt/debs" && apt-get -qq download libc6 libssl3t64 libreadline8t64 libtinfo6 zlib1g libzstd1 libsqlcipher1 sqlcipher)
for deb in "$apt"/debs/*.deb; do dpkg-deb -x "$deb" "$to/root"; done
lib=$(dirname "$(find "$to/root/usr/lib" -name libsqlcipher.so.1 | head -n 1)")
loader=$(find "$lib" "$to/root/usr/lib64" -name 'ld-linux*' | head -n 1)
printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' "$loader" "$lib" "$to/root/usr/bin/sqlcipher" > "$to/sqlcipher"
chmod +x "$to/sqlcipher"
"$to/sqlcipher" :memory: 'PRAGMA cipher_version'
