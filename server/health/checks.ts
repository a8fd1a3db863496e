import type { Check } from '@cde/api/checks.ts';
import type { Finding } from '@cde/api/findings.ts';
import { homeWarnPercents } from '@cde/api/home-space.ts';
import type { Node } from '@cde/api/nodes.ts';
import type { Satellite } from '@cde/api/satellites.ts';
import { type Database, isUnavailable } from '../database/pool.ts';
import { certificateEnd } from './certificates.ts';

export type TargetedFinding = Finding & { target: string | null };

/** What the checks look at, so that tests can pass what they like. */
export interface HealthSources {
  database: Database;
  now: () => Date;
  version: string;
  /** The number of the newest migration of this release. */
  newestMigration: () => Promise<number>;
  satellites: () => Promise<Satellite[]>;
  nodes: () => Promise<Node[]>;
  /** The URLs of the other replicas. */
  otherReplicas: () => Promise<string[]>;
  /** When the certificate of this URL ends; null: it has none, or could not be read. */
  certificateEnd?: (url: string) => Promise<Date | null>;
  /** A trivial query that takes longer is a finding. */
  slowDatabaseMs?: number;
}

type More = Partial<Pick<Finding, 'detail' | 'hint' | 'actions' | 'dependsOn'>> & { target?: string };
const finding = (
  severity: Finding['severity'],
  code: string,
  message: string,
  { target, ...more }: More = {},
): TargetedFinding => ({ code, severity, message, dependsOn: [], target: target ?? null, ...more });

/** Transactions must be frozen before two billion, or PostgreSQL stops accepting writes. */
const maxTransactionAge = 1_000_000_000;
const defaultSlowDatabaseMs = 250;
const overloadedMs = 100;
const certificateDays = 14;
const stuckBuildMinutes = 30;
const backlogMinutes = 20;
const maxNamed = 10;
const dayMs = 86_400_000;

const named = (names: readonly string[]) =>
  names.length > maxNamed
    ? `${names.slice(0, maxNamed).join(', ')} and ${names.length - maxNamed} more`
    : names.join(', ');

export function healthChecks(sources: HealthSources): Check[] {
  const { database, now } = sources;
  const rows = async <Row extends object>(text: string, values: unknown[] = []): Promise<Row[]> =>
    (await database.pool.query<Row & Record<string, unknown>>(text, values)).rows;
  const dependsOn = ['database'];
  const checks: Check[] = [
    { name: 'database', run: () => checkDatabase(rows, sources.slowDatabaseMs ?? defaultSlowDatabaseMs) },
    {
      name: 'migrations',
      dependsOn,
      async run() {
        const [{ newest } = { newest: 0 }] = await rows<{ newest: number }>(
          'SELECT max(number) AS newest FROM migrations',
        );
        if (newest <= (await sources.newestMigration())) return [];
        return [
          finding('warning', 'migrations-newer', 'A newer release of cde has migrated the database.', {
            detail: `This replica is ${sources.version}. It keeps running, but cannot be started again.`,
            hint: 'Finish the upgrade: replace the replicas of the earlier release.',
          }),
        ];
      },
    },
    { name: 'satellites', dependsOn, run: () => checkSatellites(sources) },
    { name: 'clusters', dependsOn, run: () => checkClusters(rows) },
    { name: 'nodes', dependsOn, run: async () => (await sources.nodes()).flatMap(nodeFindings) },
    { name: 'builds', dependsOn, run: () => checkBuilds(rows, now()) },
    { name: 'workspaces', dependsOn, run: () => checkWorkspaces(rows, sources.version) },
    { name: 'recordings', dependsOn, run: () => checkRecordings(rows, now()) },
    { name: 'replicas', dependsOn, run: (signal) => checkReplicas(sources, signal) },
  ];
  // One after the other, so that a look at a busy server does not take all its connections to the database.
  let before: Promise<unknown> = Promise.resolve();
  return checks.map(({ run, ...check }) => ({
    ...check,
    async run(signal) {
      const running = before.then(() => run(signal));
      before = running.catch(() => {});
      try {
        return await running;
      } catch (error) {
        // The database can stop answering after its check has passed.
        if (isUnavailable(error)) return [unreachable(error)];
        throw error;
      }
    },
  }));
}

function unreachable(error: unknown): TargetedFinding {
  let cause = error as Error;
  while (cause.cause instanceof Error) cause = cause.cause;
  return finding('error', 'database-unreachable', 'The database does not answer.', {
    detail: cause.message,
    hint: 'Check that PostgreSQL is running, that DATABASE_URL leads to it, and that it is not overloaded.',
  });
}

type Read = <Row extends object>(text: string, values?: unknown[]) => Promise<Row[]>;

async function checkDatabase(rows: Read, slowMs: number): Promise<TargetedFinding[]> {
  const began = performance.now();
  let age: number;
  try {
    const [row] = await rows<{ age: number }>(
      'SELECT age(datfrozenxid)::int AS age FROM pg_database WHERE datname = current_database()',
    );
    age = row!.age;
  } catch (error) {
    return [unreachable(error)];
  }
  const ms = performance.now() - began;
  const found: TargetedFinding[] = [];
  if (ms > slowMs)
    found.push(
      finding('warning', 'database-slow', `The database took ${Math.round(ms)} ms for a trivial query.`, {
        hint: 'Look for load and slow disks on the machine of the database, and for the distance to it.',
      }),
    );
  if (age > maxTransactionAge)
    found.push(
      finding(
        'error',
        'database-not-vacuumed',
        'The database has not been vacuumed for a billion transactions.',
        {
          detail: 'At two billion PostgreSQL stops accepting writes.',
          hint: 'Check that autovacuum is on, end old transactions, and run VACUUM FREEZE.',
        },
      ),
    );
  return found;
}

async function checkSatellites(sources: HealthSources): Promise<TargetedFinding[]> {
  const satellites = await sources.satellites();
  const list = { actions: [{ kind: 'list-satellites' as const }] };
  const found: TargetedFinding[] = [];
  for (const { name: target, state, load, seenAt } of satellites) {
    if (state === 'away')
      found.push(
        finding('error', 'satellite-offline', `The satellite ${target} has not reported since ${seenAt}.`, {
          ...{ target, ...list },
          hint: 'Check its process, and that it reaches the server. If it is gone for good, remove it.',
        }),
      );
    if (load !== null && load.loopDelayMs > overloadedMs)
      found.push(
        finding(
          'warning',
          'satellite-overloaded',
          `The satellite ${target} handles packets ${Math.round(load.loopDelayMs)} ms late.`,
          {
            ...{ target, ...list, dependsOn: ['satellite-offline'] },
            hint: 'Give it more CPU, or add another satellite to its region.',
          },
        ),
      );
  }
  const endOf = sources.certificateEnd ?? certificateEnd;
  await Promise.all(
    satellites.map(async ({ name: target, url, state }) => {
      if (url === null || state === 'away' || state === 'new') return;
      const end = await endOf(url);
      const days =
        end === null ? Number.POSITIVE_INFINITY : (end.getTime() - sources.now().getTime()) / dayMs;
      if (days > certificateDays) return;
      found.push(
        finding(
          days <= 0 ? 'error' : 'warning',
          'satellite-certificate-expiring',
          days <= 0
            ? `The certificate of the satellite ${target} has expired.`
            : `The certificate of the satellite ${target} expires in ${Math.ceil(days)} days.`,
          { ...{ target, ...list }, hint: 'Renew it, and check why it was not renewed by itself.' },
        ),
      );
    }),
  );
  return found;
}

async function checkClusters(rows: Read): Promise<TargetedFinding[]> {
  const away = await rows<{ name: string; reason: string | null }>(
    "SELECT name, reason FROM clusters WHERE state = 'away' ORDER BY name",
  );
  return away.map(({ name: target, reason }) =>
    finding(
      'error',
      'cluster-unreachable',
      `The cluster ${target} is unreachable. Its workspaces cannot start or stop.`,
      {
        ...{ target, actions: [{ kind: 'show-cluster' as const, cluster: target }] },
        ...(reason !== null && { detail: reason }),
      },
    ),
  );
}

/** Of a cluster that is unreachable, its nodes say nothing new. */
function nodeFindings(node: Node): TargetedFinding[] {
  const target = node.cluster === null ? node.name : `${node.cluster}/${node.name}`;
  const more = { target, dependsOn: ['cluster-unreachable'], actions: [{ kind: 'list-nodes' as const }] };
  const found: TargetedFinding[] = [];
  if (node.state === 'not-ready')
    found.push(
      finding('warning', 'node-not-ready', `The node ${target} is not ready.`, {
        ...more,
        ...(node.reason !== null && { detail: node.reason }),
      }),
    );
  for (const profile of node.kernelProfiles)
    if (profile.state === 'not-ready' && profile.reason === 'contested')
      found.push(
        finding(
          'warning',
          'kernel-profile-contested',
          `Another program on the node ${target} keeps changing what the kernel profile ${profile.name} sets.`,
          {
            ...more,
            ...(profile.message !== null && { detail: profile.message }),
            hint: 'Remove that setting from the other program. docs/kernel-profiles.md says how to find it.',
          },
        ),
      );
  return found;
}

async function checkBuilds(rows: Read, now: Date): Promise<TargetedFinding[]> {
  const stuck = await rows<{ name: string }>(
    `SELECT u.username || '/' || w.name AS name FROM builds b
       JOIN workspaces w ON w.id = b.workspace_id JOIN users u ON u.id = w.owner_id
      WHERE b.status IN ('queued', 'running') AND b.created_at < $1
        AND coalesce(b.startup ->> 'state', '') <> 'running'
      ORDER BY b.created_at LIMIT 100`,
    [new Date(now.getTime() - stuckBuildMinutes * 60_000)],
  );
  if (stuck.length === 0) return [];
  const [first] = stuck;
  return [
    finding(
      'warning',
      'builds-stuck',
      stuck.length === 1
        ? `A build has not ended for ${stuckBuildMinutes} minutes.`
        : `${stuck.length} builds have not ended for ${stuckBuildMinutes} minutes.`,
      {
        detail: named(stuck.map(({ name }) => name)),
        hint: 'The stages of the build say what it waits for.',
        actions: [{ kind: 'show-workspace', workspace: first!.name }],
        dependsOn: ['cluster-unreachable'],
      },
    ),
  ];
}

async function checkWorkspaces(rows: Read, version: string): Promise<TargetedFinding[]> {
  const found: TargetedFinding[] = [];
  const old = await rows<{ version: string; count: number }>(
    `SELECT agent_version AS version, count(*)::int AS count FROM workspaces
      WHERE status = 'running' AND agent_version IS NOT NULL AND agent_version <> $1 GROUP BY 1 ORDER BY 2 DESC`,
    [version],
  );
  const count = old.reduce((sum, row) => sum + row.count, 0);
  if (count > 0)
    found.push(
      finding(
        'info',
        'agents-outdated',
        `${count} running ${count === 1 ? 'workspace has' : 'workspaces have'} an agent of another release.`,
        {
          detail: `The server is ${version}; agents: ${named(old.map((row) => `${row.version} (${row.count})`))}`,
          hint: 'A workspace gets the agent of the server with its next start.',
        },
      ),
    );
  const full = await rows<{ name: string }>(
    `SELECT u.username || '/' || w.name AS name FROM workspaces w JOIN users u ON u.id = w.owner_id
      WHERE w.status = 'running' AND (w.agent_stats ->> 'homeTotalBytes')::float8 > 0
        AND (w.agent_stats ->> 'homeUsedBytes')::float8 / (w.agent_stats ->> 'homeTotalBytes')::float8 >= $1
      ORDER BY 1 LIMIT 1000`,
    [homeWarnPercents[0]! / 100],
  );
  if (full.length > 0)
    found.push(
      finding(
        'warning',
        'homes-nearly-full',
        full.length === 1 ? 'A home is nearly full.' : `${full.length} homes are nearly full.`,
        {
          detail: named(full.map(({ name }) => name)),
          hint: 'Programs fail on a full disk: ask its user to make room.',
        },
      ),
    );
  return found;
}

async function checkRecordings(rows: Read, now: Date): Promise<TargetedFinding[]> {
  const [row] = await rows<{ count: number }>(
    'SELECT count(*)::int AS count FROM recordings WHERE roll_up_at < $1',
    [new Date(now.getTime() - backlogMinutes * 60_000)],
  );
  if (row!.count === 0) return [];
  return [
    finding(
      'warning',
      'recording-backlog',
      `The recordings of ${row!.count} sessions wait to be summarized.`,
      {
        detail: `For more than ${backlogMinutes} minutes. Samples that are dropped before are lost.`,
        hint: 'The log of the server says why. It may be too busy, or its database too slow.',
        dependsOn: ['database-slow'],
      },
    ),
  ];
}

async function checkReplicas(sources: HealthSources, signal: AbortSignal): Promise<TargetedFinding[]> {
  const urls = await sources.otherReplicas();
  const found = await Promise.all(
    urls.map(async (url) => {
      try {
        const reply = await fetch(new URL('/healthz', url), {
          signal: AbortSignal.any([signal, AbortSignal.timeout(5_000)]),
        });
        await reply.body?.cancel();
        return reply.ok ? [] : [silent(url, `It replied with ${reply.status}.`)];
      } catch (error) {
        return [silent(url, (error as Error).message)];
      }
    }),
  );
  return found.flat();
}

const silent = (target: string, detail: string) =>
  finding('warning', 'replica-silent', `The replica at ${target} does not answer.`, {
    ...{ target, detail },
    hint: 'Its agents and sessions may be cut off. Check its process, and the network between the replicas.',
  });
