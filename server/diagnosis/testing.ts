import type { ClientEvent, ClientWindow } from '@cde/api/diagnosis.ts';
import { eq } from 'drizzle-orm';
import { v7 } from 'uuid';
import type { Database } from '../database/pool.ts';
import { builds, workspaces } from '../database/schema.ts';
import { hashSecret, makeSecret } from '../identity/secrets.ts';

/** The parts of the server of a test that are used here. */
interface User {
  id: string;
  username: string;
  token: string;
}
interface Server<Reply> {
  database: Pick<Database, 'db'>;
  clock: { at: Date };
  request(user: User, method: 'GET' | 'POST', url: string, body?: unknown): Promise<Reply>;
}

export const v1 = '/api/v1';
export const tokyo = { kind: 'relay', via: 'https://tokyo.example.com' } as const;
export const leg = (p50: number) => ({ p50, p95: p50 * 1.2, max: p50 * 1.5, count: 10, unanswered: 0 });
export const idle = { loopDelayMs: 1, cpuWaitPercent: 0, throttledPercent: null, memoryPercent: null };
export const clientWindow = (agoMs: number, changes: Partial<ClientWindow> = {}): ClientWindow => ({
  ...{ agoMs, ms: 10_000, path: tokyo, bytes: 1_000, host: idle },
  ...{ toSatellite: leg(10), satelliteToAgent: leg(14), toAgent: leg(24) },
  ...changes,
});
/** Windows of the time from `fromMs` to `toMs` ago. */
export const windowsAgo = (fromMs: number, toMs = 0, changes: Partial<ClientWindow> = {}): ClientWindow[] =>
  Array.from({ length: (fromMs - toMs) / 10_000 }, (_, index) =>
    clientWindow(fromMs - index * 10_000, changes),
  );
export const slept: ClientEvent[] = [
  { kind: 'slept', agoMs: 5_000, ms: 90_000 },
  { kind: 'lost', agoMs: 4_000, path: tokyo, reason: 'satellite-lost', silentMs: 91_000 },
  { kind: 'resumed', agoMs: 1_000, path: tokyo },
];

export interface Batch {
  id: string;
  batch?: number;
  startedAgoMs?: number;
  windows?: ClientWindow[];
  events?: ClientEvent[];
}

export const postBatch = <Reply>(server: Server<Reply>, user: User, workspace: string, batch: Batch) =>
  server.request(user, 'POST', `${v1}/workspaces/${workspace}/recordings`, {
    ...{ batch: 1, windows: [], events: [], startedAgoMs: 600_000, ...batch },
    client: { version: '1.2.3', platform: 'linux' },
  });

/** Inserts a running workspace of the template `plain`. */
export async function addWorkspace(server: Server<{ body: unknown }>, owner: User, name: string) {
  const [id, buildId] = [v7(), v7()];
  const { body } = await server.request(owner, 'GET', `${v1}/templates/plain`);
  const template = body as { id: string; activeVersion: { id: string } };
  const versionId = template.activeVersion.id;
  const agentToken = makeSecret('cde_agent');
  const { db } = server.database;
  await db.insert(workspaces).values({
    ...{ id, name, ownerId: owner.id, templateId: template.id, templateVersionId: versionId },
    ...{ provider: 'local', desired: 'running', status: 'running' },
  });
  await db.insert(builds).values({
    ...{ id: buildId, workspaceId: id, number: 1, transition: 'start', status: 'succeeded' },
    ...{ templateVersionId: versionId, parameters: {}, initiator: owner.username },
    agentTokenHash: hashSecret(agentToken),
    createdAt: new Date(server.clock.at.getTime() - 86_400_000),
    finishedAt: new Date(server.clock.at.getTime() - 86_300_000),
  });
  await db
    .update(workspaces)
    .set({ agentBuildId: buildId, currentBuildId: buildId })
    .where(eq(workspaces.id, id));
  return { id, agentToken, versionId };
}
