import { createReadStream, existsSync } from 'node:fs';
import { readdir, readFile, readlink } from 'node:fs/promises';
import type { AgentStats } from '@cde/api/agent.ts';

type OpenPorts = AgentStats['openPorts'];

/** The state LISTEN in /proc/net/tcp. */
const listening = '0A';
/** And of a UDP socket that takes datagrams from anybody. */
const bound = '07';
const maxPorts = 1000;
/** Processes looked at before other work gets its turn. */
const processesAtOnce = 8;

/**
 * Lists the TCP ports that processes of the workspace listen on. Only those whose process can be seen from
 * here: without a network of its own, the workspace sees the whole machine's ports. The agent's own (remote
 * forwards) are no service of the workspace. Empty where there is no /proc.
 */
export function makePortScanner(root = ''): { scan(): Promise<OpenPorts> } {
  /** Socket → name of its process; null for one of nobody here. Kept, since reading it anew is the expensive part. */
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
 * Whether a process of this workspace listens on the port: one of its user, that can be seen from here. True where there
 * is no /proc to tell.
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

/** Adds the listening sockets of one table. It may be megabytes long, and is read in pieces. */
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
    // No such table: not Linux, or no IPv6.
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
