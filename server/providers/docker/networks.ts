import { createHash } from 'node:crypto';
import type Dockerode from 'dockerode';
import { accept, messageOf, statusOf } from './engine.ts';
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

/**
 * The networks of this name, the oldest first. Docker checks names only as a matter of best effort: two replicas that create a
 * network at once make two, and then every call that names it fails.
 */
async function find(engine: Dockerode, name: string) {
  const found = await engine.listNetworks({ filters: { name: [`^${name}$`] } });
  const keyOf = ({ Created, Id }: { Created?: string; Id: string }) => `${Created} ${Id}`;
  return found.filter(({ Name }) => Name === name).sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
}

/** Removes the other networks of the name, which replicas agree on, and returns the id of the one that stays. */
async function keepOldest(engine: Dockerode, name: string): Promise<string | null> {
  const [oldest, ...others] = await find(engine, name);
  for (const { Id } of others) await accept(engine.getNetwork(Id).remove(), 404, 403, 409);
  return oldest?.Id ?? null;
}

/** A network of the workspace's own: workspaces cannot reach each other. Returns its id. */
export async function ensureNetwork(
  engine: Dockerode,
  installation: string,
  workspaceId: string,
): Promise<string> {
  const name = networkName(workspaceId);
  const existing = await keepOldest(engine, name);
  if (existing !== null) return existing;
  const first = createHash('sha256').update(workspaceId).digest().readUInt16LE();
  for (let attempt = 0; ; attempt += 1) {
    try {
      const created = await engine.createNetwork({
        Name: name,
        Driver: 'bridge',
        CheckDuplicate: true,
        // For Podman, which otherwise forwards between its networks. Docker never does, and ignores the option.
        Options: { isolate: 'true' },
        IPAM: { Driver: 'default', Config: [{ Subnet: subnetAt(first + attempt) }] },
        Labels: {
          [labels.installation]: installation,
          [labels.role]: 'network',
          [labels.workspace]: workspaceId,
        },
      });
      return (await keepOldest(engine, name)) ?? created.id;
    } catch (error) {
      const isTaken = /overlap|already (used|in use|allocated)/i.test(messageOf(error));
      if (isTaken && attempt < maxAttempts) continue;
      // Another replica was first.
      const other = statusOf(error) === 409 ? await keepOldest(engine, name) : null;
      if (other === null) throw error;
      return other;
    }
  }
}

/** False while something is connected to it. */
export async function removeNetworks(engine: Dockerode, name: string): Promise<boolean> {
  let isRemoved = true;
  for (const { Id } of await find(engine, name))
    try {
      await accept(engine.getNetwork(Id).remove(), 404);
    } catch (error) {
      // Docker answers 403 then.
      if (statusOf(error) !== 403 && statusOf(error) !== 409) throw error;
      isRemoved = false;
    }
  return isRemoved;
}
