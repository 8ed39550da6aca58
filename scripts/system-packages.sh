#!/bin/sh
# Installs the system packages that the demo or the tests can use, through apt and as root, or says which are missing.
# Never fails: what needs a missing program is unavailable or skipped, and says so. Starts no services.
#
#     system-packages.sh VENV demo|test
set -u
asked=$1/system-packages-asked
purpose=$2

# One line for each package: the Debian package, and the program (or its path) or library (lib...) that shows that it is there.
wanted() {
    echo "libusrsctp2 libusrsctp.so"
    [ "$purpose" = test ] || return 0
    echo "libusrsctp-examples /usr/lib/usrsctp/tsctp"
    echo "nginx-light nginx"
    echo "socat socat"
    echo "openssl openssl"
    echo "gnutls-bin gnutls-cli"
    echo "ngtcp2-client gtlsclient"
    echo "ngtcp2-server gtlsserver"
    echo "iproute2 ip"
    echo "iptables iptables"
    echo "nodejs node"
    echo "npm npm"
}

missing() {
    wanted | while read -r package proof; do
        case $proof in
        lib*) find_library "$proof" || echo "$package" ;;
        *) command -v "$proof" >/dev/null || echo "$package" ;;
        esac
    done
}

find_library() {
    { ldconfig -p 2>/dev/null || true; } | grep -q "$1" ||
        ls /usr/lib/*/"$1"* /usr/local/lib/"$1"* /opt/homebrew/lib/"${1%.so}".* >/dev/null 2>&1
}

install() {
    apt-get install -qq --yes --no-install-recommends "$@" >/dev/null 2>&1
}

# System programs are often outside an ordinary user's PATH.
PATH=$PATH:/usr/sbin:/sbin
packages=$(missing | tr '\n' ' ')
[ -n "$packages" ] || exit 0

# Ask apt once for the same packages, not at every run.
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ "$(cat "$asked" 2>/dev/null)" != "$packages" ]; then
    echo "Installing system packages: $packages"
    export DEBIAN_FRONTEND=noninteractive
    # Policy 101 forbids packages to start services while they are installed.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        trap 'rm -f $policy' EXIT
        trap 'exit 1' HUP INT TERM
        printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
    fi
    # shellcheck disable=SC2086  # one word for each package
    if ! install $packages; then
        apt-get update -qq >/dev/null 2>&1
        # shellcheck disable=SC2086
        install $packages || for package in $packages; do install "$package"; done
    fi
    echo "$packages" >"$asked"
    packages=$(missing | tr '\n' ' ')
    [ -z "$packages" ] || printf '%s\n' "$packages" >"$asked"
fi
[ -z "$packages" ] || echo "Not installed, so that what needs them is left out: $packages"
exit 0
