import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Connection } from 'ssh2';
import { openAgentChannel } from '../protocol/ssh2-internals.ts';
import { splice } from './splice.ts';

/** The workspace's end of a client's forwarded ssh-agent. */
export interface ForwardedAgent {
  /** For SSH_AUTH_SOCK. */
  path: string;
  close(): Promise<void>;
}

/** Listens on a Unix socket in a private folder; each connection becomes a channel to the client. */
export async function forwardAgent(connection: Connection): Promise<ForwardedAgent> {
  const folder = await mkdtemp(join(tmpdir(), 'cde-agent-'));
  const path = join(folder, 'agent.sock');
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    openAgentChannel(connection).then(
      (channel) => splice(channel, socket),
      () => socket.destroy(),
    );
  });
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
  return {
    path,
    async close() {
      server.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
