import { createReadStream, existsSync } from 'node:fs';
import { readdir, readFile, readlink } from 'node:fs/promises';
import type { AgentStats } from '@cde/api/agent.ts';

type OpenPorts = AgentStats['openPorts'];

/** TCP_LISTEN in /proc/net/tcp. */
const listening = '0A';
/** The state of an unconnected UDP socket. */
const bound = '07';
const maxPorts = 1000;
/** Processes inspected before yielding to the event loop. */
const processesAtOnce = 8;

/**
 * Lists the TCP ports that processes of the workspace listen on. Ports without a visible process are left out, since a
 * workspace without its own network sees the whole machine's; so are the agent's own (remote forwards). Empty without
 * /proc.
 */
export function makePortScanner(root = ''): { scan(): Promise<OpenPorts> } {
  /** Socket → name of its process, or null if it is not visible. Cached, because finding it is expensive. */
  let known = new Map<string, string | null>();
  return {
    async scan() {
      const sockets = new Map<string, number>();
      for (const file of ['tcp', 'tcp6']) await readListeners(`${root}/proc/net/${file}`, sockets);
      const missing = new Set([...sockets.keys()].filter((socket) => !known.has(socket)));
      const found = missing.size > 0 ? await findOwners(root, missing) : new Map<string, string>();
      const next = new Map<string, string | null>();
      for (const socket of sockets.keys()) next.set(socket, found.get(socket) ?? known.get(socket) ?? null);
      known = next;
      const ports = new Map<number, string>();
      for (const [socket, port] of sockets) {
        const process = known.get(socket);
        if (process && !ports.has(port)) ports.set(port, process);
      }
      return [...ports]
        .sort(([one], [other]) => one - other)
        .slice(0, maxPorts)
        .map(([port, process]) => ({ port, process }));
    },
  };
}

/**
 * Whether a process of this workspace (of its user, and visible here) listens on the port. True without /proc, since it
 * cannot be checked.
 */
export async function hasOwnListener(protocol: 'tcp' | 'udp', port: number, root = ''): Promise<boolean> {
  if (!existsSync(`${root}/proc/net/${protocol}`)) return true;
  const sockets = new Map<string, number>();
  const only = { port, uid: process.getuid?.() ?? 0 };
  const state = protocol === 'tcp' ? listening : bound;
  for (const file of [protocol, `${protocol}6`])
    await readListeners(`${root}/proc/net/${file}`, sockets, state, only);
  if (sockets.size === 0) return false;
  return (await findOwners(root, new Set(sockets.keys()), true)).size > 0;
}

/** Adds the listening sockets of one table. It may be megabytes long, so it is streamed. */
async function readListeners(
  path: string,
  sockets: Map<string, number>,
  state = listening,
  only?: { port: number; uid: number },
): Promise<void> {
  let rest = '';
  try {
    for await (const chunk of createReadStream(path, { encoding: 'latin1', highWaterMark: 64 * 1024 })) {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop()!;
      for (const line of lines) {
        // sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
        const fields = line.trimStart().split(/\s+/, 10);
        if (fields[3] !== state) continue;
        const port = Number.parseInt(fields[1]!.slice(fields[1]!.lastIndexOf(':') + 1), 16);
        if (only && (port !== only.port || Number(fields[7]) !== only.uid)) continue;
        if (port > 0) sockets.set(fields[9]!, port);
      }
    }
  } catch {
    // The table is missing: not Linux, or no IPv6.
  }
}

async function findOwners(
  root: string,
  sockets: Set<string>,
  withSelf = false,
): Promise<Map<string, string>> {
  const owners = new Map<string, string>();
  const pids = (await readdir(`${root}/proc`).catch(() => [] as string[])).filter(
    (name) => /^\d+$/.test(name) && (withSelf || name !== String(process.pid)),
  );
  for (let at = 0; at < pids.length && owners.size < sockets.size; at += processesAtOnce) {
    await Promise.all(pids.slice(at, at + processesAtOnce).map((pid) => inspect(`${root}/proc/${pid}`)));
  }
  return owners;

  async function inspect(folder: string) {
    const descriptors = await readdir(`${folder}/fd`).catch(() => [] as string[]);
    for (const descriptor of descriptors) {
      const target = await readlink(`${folder}/fd/${descriptor}`).catch(() => '');
      const socket = /^socket:\[(\d+)\]$/.exec(target)?.[1];
      if (!socket || !sockets.has(socket) || owners.has(socket)) continue;
      const name = await readFile(`${folder}/comm`, 'utf8').catch(() => '');
      owners.set(socket, name.trim() || 'unknown');
    }
  }
}
