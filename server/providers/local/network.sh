#!/bin/sh
# Gives the network namespace that this runs in its way out, then becomes COMMAND. Nothing is left to clean up: the
# namespace lives as long as its processes, and takes its interfaces along, those on the machine's side too.
#
# usage: network.sh veth FIRST COUNT POOL LOCALNET COMMAND...
#          as root, in a new network namespace whose parent process is in the machine's
#          POOL      two bytes of the machine's pool of addresses, 10.213; a workspace gets 4 of them
#          FIRST     the number to try first, below COUNT; an interface's name holds its number, so that the kernel
#                    gives each to one workspace of this machine, whichever server asks
#          LOCALNET  1: names are resolved by a program on the machine's loopback address
#        network.sh pasta COMMAND...
#          as a child of pasta
# Exits with 77 when that fails.
set -u

fail() {
  echo "cde: the workspace's network cannot be made: $1" >&2
  exit 77
}

inside() { # lines of ip: made in this namespace
  said=$(ip -batch - 2>&1) || fail "$said"
}

permit() { # VALUE FILE: of this namespace; a container may show these read-only, and then its own hold
  { echo "$1" >"/proc/sys/net/$2"; } 2>/dev/null || :
}

case "$1" in
  veth)
    first=$2 count=$3 pool=$4 localnet=$5
    shift 5
    outside=/proc/$PPID/ns/net
    tries=0
    while :; do
      n=$(((first + tries) % count))
      subnet=$pool.$((n / 64))
      gateway=$subnet.$((n % 64 * 4 + 1))
      own=$subnet.$((n % 64 * 4 + 2))
      said=$(
        nsenter --net="$outside" ip -batch - 2>&1 <<END
link add cdew$n type veth peer name eth0 netns $$
addr add $gateway/30 dev cdew$n
link set cdew$n up
END
      ) && break
      case "$said" in *'File exists'*) ;; *) fail "$said" ;; esac
      tries=$((tries + 1))
      [ $tries -lt "$count" ] || fail 'no address is left'
    done
    if [ "$localnet" = 1 ]; then
      nsenter --net="$outside" /bin/sh -c "echo 1 >/proc/sys/net/ipv4/conf/cdew$n/route_localnet" ||
        fail 'the resolver of the machine cannot be reached'
      # The file is the run directory's, and shown inside as /etc/resolv.conf.
      [ ! -r resolv.template ] || sed "s/^nameserver GATEWAY\$/nameserver $gateway/" resolv.template >resolv.conf ||
        fail 'resolv.conf cannot be written'
    fi
    inside <<END
link set lo up
addr add $own/30 dev eth0
link set eth0 up
route add default via $gateway
END
    ;;
  pasta)
    shift
    inside <<END
route add blackhole 169.254.169.254/32
END
    ;;
  *) fail "no such mode: $1" ;;
esac
# One's own loopback address: any port, and ping, as on a machine of one's own.
permit 0 ipv4/ip_unprivileged_port_start
permit '0 2147483647' ipv4/ping_group_range
exec "$@"
