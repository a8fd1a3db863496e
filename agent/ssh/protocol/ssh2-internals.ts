/**
 * The few places where the agent must reach past ssh2's public interface, each with the reason. ssh2 is
 * pinned to an exact version, and server.test.ts covers every one of them with a real OpenSSH client.
 */
import type { Connection, ServerChannel, Session } from 'ssh2';
import ssh2 from 'ssh2';

const maxWindow = 2 * 1024 * 1024;
const packetSize = 32 * 1024;

interface Internals {
  _chanMgr: { add(wrapper: unknown): number };
  _protocol: { openssh_authAgent(channel: number, window: number, packet: number): void };
}

/**
 * Stops ssh2 from ending a connection whose client is silent for 45 s: its option for this accepts no
 * zero. The pipe below outlives a laptop's sleep, so the SSH layer above must not give up first.
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
 * Keeps window changes and signals working after the client has closed its stdin: ssh2 treats the
 * client's EOF as the end of the whole session and refuses all requests from then on.
 */
export function keepRequestsAfterEof(session: Session): void {
  session.on('eof', () => {
    (session as unknown as { _ending: boolean })._ending = false;
  });
}

/**
 * Forgets the chunk that ssh2 keeps after it was written. A channel remembers the last stdout chunk that
 * had to wait for the window, and would send it a second time when stderr has to wait later.
 */
export function forgetWritten(channel: ServerChannel): void {
  const state = channel as unknown as Record<string, unknown>;
  state._chunk = undefined;
  state._chunkcb = undefined;
  state._chunkErr = undefined;
  state._chunkcbErr = undefined;
}

/** Sends EOF and leaves the other direction open; `end()` closes both on a server's channel. */
export function sendEof(channel: ServerChannel): void {
  (channel as unknown as { eof(): void }).eof();
}
