import { createHash } from 'node:crypto';
import type Dockerode from 'dockerode';
import { accept, messageOf, orNull, statusOf } from './engine.ts';
import { labels, networkName } from './names.ts';

/** Docker's own pool has room for 31 networks. Each workspace gets 16 addresses of this one: 4,096 networks. */
const pool = { base: (10 << 24) | (199 << 16), bits: 16, subnetBits: 28 };
const subnets = 2 ** (pool.subnetBits - pool.bits);
/** Taken subnets are skipped. After as many attempts the pool is full, or something else is wrong. */
const maxAttempts = 64;

export function subnetAt(index: number): string {
  const address = pool.base + (index % subnets) * 2 ** (32 - pool.subnetBits);
  return `${[24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.')}/${pool.subnetBits}`;
}

/** A network of the workspace's own: workspaces cannot reach each other. */
export async function ensureNetwork(
  engine: Dockerode,
  installation: string,
  workspaceId: string,
): Promise<void> {
  const name = networkName(workspaceId);
  if (await orNull(engine.getNetwork(name).inspect())) return;
  const first = createHash('sha256').update(workspaceId).digest().readUInt16LE();
  for (let attempt = 0; ; attempt += 1) {
    try {
      await engine.createNetwork({
        Name: name,
        Driver: 'bridge',
        CheckDuplicate: true,
        IPAM: { Driver: 'default', Config: [{ Subnet: subnetAt(first + attempt) }] },
        Labels: {
          [labels.installation]: installation,
          [labels.role]: 'network',
          [labels.workspace]: workspaceId,
        },
      });
      return;
    } catch (error) {
      // Another replica was first.
      if (statusOf(error) === 409 && /already exists/.test(messageOf(error))) return;
      const isTaken = /overlap|already (used|in use|allocated)/i.test(messageOf(error));
      if (!isTaken || attempt === maxAttempts) throw error;
    }
  }
}

export const removeNetwork = (engine: Dockerode, workspaceId: string) =>
  accept(engine.getNetwork(networkName(workspaceId)).remove(), 404);
