import { usernamePattern } from '@cde/api/names.ts';

const maxLength = 32;
/** Why a well-formed name is reserved. */
type Reservation = 'own' | 'system' | 'network';

const words = (text: string) => text.trim().split(/\s+/);
const reserved: Record<Reservation, Set<string>> = {
  // `me` means the caller in paths; the others are actors in the audit log that are not users.
  own: new Set(['me', 'system', 'agent', 'anonymous', 'cde', 'satellite', 'noded']),
  // Users and groups of Debian, Ubuntu, Alpine, Fedora, Arch and images based on them, including databases and web servers.
  // The username becomes a Unix user in the workspace, where these already exist. `systemd-…` is reserved by prefix.
  system: new Set(
    words(`
      root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody nogroup nfsnobody
      adm tty disk dialout fax voice cdrom floppy tape sudo audio dip operator src shadow utmp video sasl plugdev staff
      users wheel input sgx kvm render kmem lock netdev crontab ssh sshd ssh-keys ssl-cert messagebus dbus polkitd avahi
      avahi-autoipd colord geoclue gdm lightdm saned scanner lpadmin pulse pulse-access rtkit tss uuidd tcpdump syslog
      rsyslog landscape pollinate lxd libvirt libvirt-qemu libvirtd docker containerd podman halt shutdown reboot
      postmaster cron at smmsp squid xfs cyrus vpopmail ntp ntpd chrony guest ftp vcsa mem wtmp log http rpc rpcuser
      nscd nslcd sssd unbound named bind tomcat nginx apache apache2 httpd postgres mysql mariadb mongodb redis memcached
      rabbitmq elasticsearch cassandra etcd kafka zookeeper prometheus grafana haproxy varnish jenkins git gitea
      postfix postdrop dovecot dovenull exim mailnull nixbld adbusers fuse netadmin wireshark nm-openvpn openvpn
      cockpit-ws cockpit-wsinstance dnsmasq usbmux qemu stapusr stapsys stapdev setroubleshoot clevis flatpak toor sudoers
      admins administrator
    `),
  ),
  // Usernames become labels of host names (workspaces, ports) and namespaces of clusters.
  network: new Set(
    words(`
      localhost localdomain local internal broadcasthost ip6-localhost ip6-loopback ip6-allnodes ip6-allrouters
      kubernetes kube kube-system kube-public kube-node-lease default wpad isatap autoconfig autodiscover www
    `),
  ),
};

const prefixes: Record<string, Reservation> = { 'systemd-': 'system', 'kube-': 'network' };

/** Why a new user cannot have this username, or null if they can. Existing users keep theirs. */
export function findReservation(username: string): Reservation | null {
  for (const [reservation, names] of Object.entries(reserved))
    if (names.has(username)) return reservation as Reservation;
  return Object.entries(prefixes).find(([prefix]) => username.startsWith(prefix))?.[1] ?? null;
}

const reasons: Record<Reservation, string> = {
  own: 'cde uses it itself',
  system: 'it names a system user or group of common Linux images',
  network: 'it is reserved for host names',
};

/** Completes the sentence "The username root is reserved: ". */
export const reservationReason = (reservation: Reservation): string => reasons[reservation];

const isReserved = (username: string): boolean => findReservation(username) !== null;

/** Converts a login name, email address or person's name to a valid username. Null if that is not possible. */
export function makeUsername(text: string): string | null {
  const username = text
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .toLowerCase()
    .replace(/@.*$/, '')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^[^a-z]+/, '')
    .slice(0, maxLength)
    .replace(/-+$/, '');
  return usernamePattern.test(username) && !isReserved(username) ? username : null;
}

/** Yields `username`, `username-2`, `username-3`, … without end. */
export function* usernameCandidates(username: string): Generator<string> {
  yield username;
  for (let number = 2; ; number++) {
    const suffix = `-${number}`;
    yield `${username.slice(0, maxLength - suffix.length).replace(/-+$/, '')}${suffix}`;
  }
}
