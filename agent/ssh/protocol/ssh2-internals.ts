/**
 * Everything that uses ssh2's private interface, with the reason. ssh2 is pinned to an exact version, and the tests cover
 * each use with a real OpenSSH client.
 */
import type { Duplex } from 'node:stream';
import type { Connection, ServerChannel, Session } from 'ssh2';
import ssh2 from 'ssh2';

const maxWindow = 2 * 1024 * 1024;
const packetSize = 32 * 1024;

interface Internals {
  _chanMgr: { add(wrapper: unknown): number };
  _protocol: { openssh_authAgent(channel: number, window: number, packet: number): void };
}

/**
 * Keeps ssh2 from ending a connection whose client is silent for 45 s; its option cannot be set to zero. The pipe below
 * survives a laptop's sleep, so the SSH layer must not give up first.
 */
export function disableServerKeepalive(): void {
  (ssh2.Server as unknown as { KEEPALIVE_CLIENT_INTERVAL: number }).KEEPALIVE_CLIENT_INTERVAL = -1;
}

/** Opens an `auth-agent@openssh.com` channel to the client; ssh2's server has the packet but no method. */
export function openAgentChannel(connection: Connection): Promise<ServerChannel> {
  const internals = connection as unknown as Internals;
  return new Promise((resolve, reject) => {
    const opened = (error: Error | undefined, channel: ServerChannel) =>
      error ? reject(error) : resolve(channel);
    const wrapper = Object.assign(opened, { type: 'auth-agent@openssh.com' });
    const id = internals._chanMgr.add(wrapper);
    if (id === -1) reject(new Error('no free channel'));
    else internals._protocol.openssh_authAgent(id, maxWindow, packetSize);
  });
}

/**
 * Keeps window changes and signals working after the client has closed its stdin: ssh2 treats EOF as the end of the session
 * and rejects all later requests.
 */
export function keepRequestsAfterEof(session: Session): void {
  session.on('eof', () => {
    (session as unknown as { _ending: boolean })._ending = false;
  });
}

/**
 * Drops the chunk that ssh2 still holds after it was written: a channel remembers the last stdout chunk that waited for the
 * window, and would send it again when stderr waits later.
 */
export function forgetWritten(channel: ServerChannel): void {
  const state = channel as unknown as Record<string, unknown>;
  state._chunk = undefined;
  state._chunkcb = undefined;
  state._chunkErr = undefined;
  state._chunkcbErr = undefined;
}

/** Sends EOF without closing the other direction; `end()` of a server's channel closes both. */
export function sendEof(channel: ServerChannel): void {
  (channel as unknown as { eof(): void }).eof();
}

/** The stream that was given to `injectSocket`; the server's `connection` event does not name it. */
export function streamOf(connection: Connection): Duplex {
  return (connection as unknown as { _sock: Duplex })._sock;
}
