/**
 * Listing 1,000 of 10,000 workspaces, and reading one, under load. Baseline: a plain Fastify route that returns the same
 * bytes, in alternating rounds. Server, baseline and load generator run in separate processes. Prints requests per
 * second, p50 and p99 (ms), and the ratio to the baseline. Usage: node bench/lists.ts
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startEmbedded } from '@cde/server/database/embedded.ts';
import { migrate } from '@cde/server/database/migrate.ts';
import { openDatabase } from '@cde/server/database/pool.ts';
import { hashSecret, makeSecret } from '@cde/server/identity/secrets.ts';
import autocannon from 'autocannon';

const seconds = Number(process.env.SECONDS ?? 6);
const here = (file: string) => fileURLToPath(new URL(file, import.meta.url));
const folder = await mkdtemp(join(tmpdir(), 'cde-bench-'));
const embedded = await startEmbedded(folder);
const database = openDatabase(embedded.url);
await migrate(database.pool);
const token = makeSecret('cde');
await database.pool.query(`
  INSERT INTO users (id, username, role) SELECT uuidv7(), 'user' || n, 'member' FROM generate_series(1, 100) n;
  INSERT INTO users (id, username, role) VALUES (uuidv7(), 'boss', 'owner');
  INSERT INTO templates (id, name) VALUES (uuidv7(), 'plain');
  INSERT INTO template_versions (id, template_id, number, files, files_hash, content)
    SELECT uuidv7(), id, 1, '{}', '', '{"name":"plain","provider":"local","parameters":[]}' FROM templates;
  UPDATE templates SET active_version_id = (SELECT id FROM template_versions);
  INSERT INTO workspaces (id, owner_id, name, template_id, template_version_id, parameters, provider, desired, status)
    SELECT uuidv7(), (SELECT id FROM users WHERE username = 'user' || (1 + n % 100)), 'workspace-' || n, t.id, t.active_version_id,
           '{"memory":"2Gi","shell":"/bin/bash"}', 'local', 'stopped', 'stopped'
      FROM generate_series(1, 10000) n, templates t;
  INSERT INTO builds (id, workspace_id, number, transition, status, template_version_id, parameters, stages, initiator, started_at, finished_at)
    SELECT uuidv7(), w.id, 1, 'start', 'succeeded', w.template_version_id, w.parameters,
           (SELECT jsonb_agg(jsonb_build_object('name', s, 'status', 'succeeded', 'startedAt', '2026-01-01T00:00:00.000Z', 'finishedAt', '2026-01-01T00:00:00.000Z'))
              FROM unnest(ARRAY['queued','render','provision','agent','startup','ready']) s),
           'boss', now(), now()
      FROM workspaces w;
  UPDATE workspaces w SET current_build_id = b.id FROM builds b WHERE b.workspace_id = w.id;
  ANALYZE`);
await database.pool.query(
  "INSERT INTO api_tokens (id, token_hash, user_id, name, scopes, expires_at) SELECT uuidv7(), $1, id, 'bench', '{all}', now() + interval '1 day' FROM users WHERE username = 'boss'",
  [hashSecret(token)],
);
const { rows } = await database.pool.query<{ id: string }>(
  'SELECT id FROM workspaces ORDER BY id LIMIT 1 OFFSET 5000',
);
await database.close();

const start = async (
  file: string,
  env: Record<string, string>,
  message?: object,
): Promise<{ child: ChildProcess; url: string }> => {
  const child = fork(here(file), [], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  if (message) child.send(message);
  const [ready] = (await once(child, 'message')) as [{ url: string }];
  return { child, url: ready.url };
};
const server = await start('../server/main.ts', {
  CDE_DATA_DIR: folder,
  DATABASE_URL: embedded.url,
  CDE_LISTEN: '127.0.0.1:0',
  CDE_LOG_LEVEL: 'error',
});
const headers = { authorization: `Bearer ${token}` };
const cases = {
  'list 1,000 of 10,000': '/api/v1/workspaces?limit=1000',
  'read one': `/api/v1/workspaces/${rows[0]!.id}`,
};
const bodies: Record<string, string> = {};
for (const path of Object.values(cases))
  bodies[path.split('?')[0]!] = await (await fetch(server.url + path, { headers })).text();
const plain = await start('plain-route.ts', {}, bodies);

const load = (url: string, connections: number) =>
  autocannon({ url, connections, duration: seconds, headers });
try {
  for (const [name, path] of Object.entries(cases)) {
    const connections = path.includes('limit') ? 4 : 16;
    await autocannon({ url: server.url + path, connections, duration: 2, headers });
    const base = await load(plain.url + path, connections);
    const ours = await load(server.url + path, connections);
    const kib = (bodies[path.split('?')[0]!]!.length / 1024).toFixed(1);
    for (const [who, result] of [
      ['plain Fastify', base],
      ['cde', ours],
    ] as const)
      console.log(
        `${name} (${kib} KiB, ${connections} connections)  ${who.padEnd(14)} ${result.requests.average.toFixed(0).padStart(7)} req/s  p50 ${result.latency.p50} ms  p99 ${result.latency.p99} ms  errors ${result.errors + result.non2xx}`,
      );
    console.log(
      `${name}  ratio of requests per second: ${(ours.requests.average / base.requests.average).toFixed(3)}\n`,
    );
  }
} finally {
  plain.child.kill();
  server.child.kill('SIGTERM');
  await once(server.child, 'exit');
  await embedded.stop();
  await rm(folder, { recursive: true, force: true });
}
