import type { Log } from '@cde/tunnel/log.ts';
import { z } from 'zod';
import { type StunServer, serveStun } from './server.ts';

const grammar = /^(?:off|(?:(\[[0-9a-fA-F:.]+\]|[^:\s]+):)?(\d{1,5}))$/;

/** The setting of the STUN address: `off`, PORT or HOST:PORT. */
export const UdpListen = z
  .string()
  .regex(grammar, 'write a port, HOST:PORT, or off')
  .transform((text) => {
    const [, host, port] = grammar.exec(text) ?? [];
    return port === undefined
      ? ('off' as const)
      : { host: host?.replace(/^\[|\]$/g, ''), port: Number(port) };
  })
  .refine((listen) => listen === 'off' || listen.port <= 65535, 'a port is at most 65535');
export type UdpListen = z.output<typeof UdpListen>;

export interface StunService {
  /** HOST:PORT at which clients and agents reach it; null if it is off. */
  readonly address: string | null;
  readonly server: StunServer | null;
  close(): Promise<void>;
}

/**
 * Starts the STUN server at the configured address, by default at the address and port of `listen`. If the default is
 * taken it only warns; if a configured address is, it rejects.
 */
export async function startStun(options: {
  udp: UdpListen | undefined;
  /** Public HOST:PORT; by default the host of `url` and the port it listens on. */
  announce: string | undefined;
  listen: { host: string; port: number };
  url: string;
  log: Log;
}): Promise<StunService> {
  const { udp, listen, log } = options;
  if (udp === 'off') return none;
  let server: StunServer;
  try {
    server = await serveStun({ host: udp?.host ?? listen.host, port: udp?.port ?? listen.port, log });
  } catch (error) {
    if (udp) throw error;
    log.warn({ why: (error as Error).message }, 'no STUN: direct-udp paths through NATs will be rare');
    return none;
  }
  const address = options.announce ?? `${new URL(options.url).hostname}:${server.port}`;
  return { address, server, close: () => server.close() };
}

const none: StunService = { address: null, server: null, close: async () => {} };
