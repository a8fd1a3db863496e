import { sshCiphers } from '@cde/tunnel/streams/ssh2.ts';

/**
 * The server's identification. Clients adapt their behaviour to it, and this server expects what they do for OpenSSH:
 * - OpenSSH's client sends `eow@openssh.com` only to names that match `OpenSSH*` (compat.c), without which
 *   `ssh ws yes | head -1` never ends; it also sends `no-more-sessions@openssh.com`.
 * - asyncssh, node ssh2, sshj, libssh and WinSCP send the arguments of SFTP's SYMLINK in OpenSSH's order to OpenSSH,
 *   and in the draft's order to other servers, while OpenSSH's own client, paramiko, libssh2 and Go always send
 *   OpenSSH's. The server cannot tell the two apart.
 * - node ssh2 sends SFTP packets of 256 KiB to OpenSSH and of 34 KB to other servers.
 *
 * The version is one for which no client has workarounds: OpenSSH, asyncssh, paramiko and libssh2 work around RSA signatures
 * before 7.8, PuTTY around late replies before 6.7. libssh reads one digit, a dot and a digit. “cde” is where others
 * have “Debian-2”.
 */
export const serverIdent = 'OpenSSH_9.9 cde';

/**
 * The offered algorithms, each tested with a client (algorithms.test.ts). Left out of ssh2's list:
 * diffie-hellman-group-exchange-*, which its server does not implement, and `zlib`, which compresses before the login.
 */
export const algorithms = {
  kex: [
    'curve25519-sha256',
    'curve25519-sha256@libssh.org',
    'ecdh-sha2-nistp256',
    'ecdh-sha2-nistp384',
    'ecdh-sha2-nistp521',
    'diffie-hellman-group16-sha512',
    'diffie-hellman-group18-sha512',
    'diffie-hellman-group14-sha256',
  ],
  // Without chacha20-poly1305, which OpenSSH prefers but is half as fast in Node. TLS encrypts everything anyway.
  cipher: [...sshCiphers],
  hmac: [
    'hmac-sha2-256-etm@openssh.com',
    'hmac-sha2-512-etm@openssh.com',
    'hmac-sha1-etm@openssh.com',
    'hmac-sha2-256',
    'hmac-sha2-512',
    'hmac-sha1',
  ],
  compress: ['none', 'zlib@openssh.com'],
} as const;
