import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AgentActivity, Signal } from '@cde/api/activity.ts';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { until } from '../../../tests/kit/until.ts';
import { readConfig } from '../../config.ts';
import { type ControlPlane, startControlPlane } from '../../control-plane.ts';
import { makeLog } from '../../log.ts';
import { addUser, makeTestDatabase, type TestDatabase, type TestUser } from '../../testing.ts';
import { makeScriptedProvider, type ScriptedProvider } from '../scripted-provider.ts';
import { sweepLockKey } from './idle-worker.ts';

const minute = 60_000;
const template = (name: string, more = '') =>
  `name: ${name}\nprovider: local\nidle:\n  stopAfter: 30m\n${more}`;

let database: TestDatabase;
let server: ControlPlane;
let provider: ScriptedProvider;
let folder: string;
let ada: TestUser;
let admin: TestUser;
let clock: number;
let count = 0;

beforeAll(async () => {
  database = await makeTestDatabase();
  folder = await mkdtemp(join(tmpdir(), 'cde-data-'));
  clock = Date.now();
  provider = makeScriptedProvider();
  server = await startControlPlane({
    config: readConfig([], { CDE_DATA_DIR: folder, CDE_LISTEN: '127.0.0.1:0' }),
    database,
    log: makeLog('silent'),
    now: () => new Date(clock),
    providers: new Map([['local', provider]]),
    checkReplies: true,
  });
  ada = await addUser(database, 'ada');
  admin = await addUser(database, 'adm', 'owner');
  for (const text of [
    template('plain'),
    template('bounded', '  maxRun: 2h\n'),
    template('dormant', '  dormantAfterDays: 30\n'),
    `${template('tidy')}shutdown:\n  script: echo bye\n  timeout: 20s\n`,
  ])
    expect(
      (await call(admin, 'POST', '/api/v1/templates', { files: { 'template.yaml': text } })).status,
    ).toBe(201);
});
afterAll(async () => {
  await server?.stop();
  await database?.drop();
  await rm(folder, { recursive: true, force: true });
});
beforeEach(() => {
  provider.launches.length = 0;
  provider.calls.length = 0;
});
afterEach(async () => {
  await database.pool.query(
    "UPDATE workspaces SET status = 'stopped', desired = 'stopped', agent_build_id = NULL",
  );
});

async function call(
  user: { token: string },
  method: string,
  path: string,
  body?: unknown,
): Promise<{ status: number; body: any }> {
  const reply = await fetch(server.url + path, {
    method,
    headers: {
      authorization: `Bearer ${user.token}`,
      ...(body !== undefined && { 'content-type': 'application/json' }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await reply.text();
  return { status: reply.status, body: text === '' ? undefined : JSON.parse(text) };
}

const keys = {
  tlsPublicKey: 'A'.repeat(43),
  sshHostKey: `ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA${'A'.repeat(42)}`,
  version: '1',
  hostname: 'here',
};

interface Agent {
  token: string;
  name: string;
  /** Unix time of its start and of its signals. */
  startedAt: number;
  signals: Partial<Record<Signal, number>>;
}
const show = async ({ name }: { name: string }) =>
  (await call(ada, 'GET', `/api/v1/workspaces/${name}`)).body;
const untilStatus = (agent: Agent, status: string) =>
  until(
    () => show(agent),
    (workspace) => workspace.status === status,
  );
const stats = {
  cpuPercent: 0,
  load1: 0,
  memoryUsedBytes: 1,
  memoryLimitBytes: null,
  homeUsedBytes: null,
  homeTotalBytes: null,
  openPorts: [],
  sessions: [],
};

/** Plays the agent of the next launch. */
async function arrives(agent: Agent): Promise<Agent> {
  await until(
    async () => provider.launches.length,
    (launches) => launches > 0,
  );
  agent.token = provider.launches.shift()!.token;
  agent.startedAt = clock;
  agent.signals = {};
  await call(agent, 'POST', '/api/v1/agent/register', keys);
  await call(agent, 'POST', '/api/v1/agent/startup', { state: 'none' });
  await untilStatus(agent, 'running');
  return agent;
}
/** Creates a workspace and plays its agent. */
async function running(templateName = 'plain'): Promise<Agent> {
  const name = `w${++count}`;
  await call(ada, 'POST', '/api/v1/workspaces', { name, template: templateName });
  return arrives({ token: '', name, startedAt: clock, signals: {} });
}
function activityOf({ startedAt, signals }: Agent): AgentActivity {
  return {
    agentAgeMs: clock - startedAt,
    signals: Object.entries(signals).map(([signal, at]) => ({
      signal: signal as Signal,
      ageMs: clock - at,
      by: 'ada',
    })),
  };
}
/** `same`: the revision that the agent names instead of its activity. */
async function report(agent: Agent, same?: string) {
  const { status, body } = await call(agent, 'POST', '/api/v1/agent/stats', {
    at: new Date(clock).toISOString(),
    ...stats,
    activity: same === undefined ? activityOf(agent) : { same },
  });
  expect(status).toBe(200);
  return body.idle;
}
const answer = (agent: Agent, id: string, state: 'ready' | 'vetoed') =>
  call(agent, 'POST', '/api/v1/agent/shutdown', {
    id,
    state,
    activity: activityOf(agent),
    ...(state === 'ready' && { exitCode: 0, timedOut: false }),
  });
/** Sweeps on this replica, also while the server's own sweep is at it. */
const sweep = () => until(() => server.app.idle.sweep(), Boolean);
const activity = async (agent: Agent) =>
  (await call(ada, 'GET', `/api/v1/workspaces/${agent.name}/activity`)).body;
const events = async (agent: Agent): Promise<{ kind: string; text: string; cause: string }[]> =>
  (await call(ada, 'GET', `/api/v1/workspaces/${agent.name}/activity/events`)).body.items;
const kinds = async (agent: Agent) => (await events(agent)).map(({ kind }) => kind);
const pass = (ms: number) => {
  clock += ms;
};

describe('an idle workspace', () => {
  test('is stopped once its agent has confirmed that nothing has happened until this moment', async () => {
    const agent = await running();
    pass(minute);
    expect(await report(agent)).toMatchObject({ stopsInMs: 29 * minute, cause: 'idle', shutdown: null });
    pass(29 * minute);
    await sweep();
    expect(await show(agent)).toMatchObject({ status: 'running' });
    await report(agent);
    await sweep();
    const { shutdown } = await report(agent);
    expect(shutdown).toMatchObject({ cause: 'idle', idleSinceAgeMs: 30 * minute, script: null });
    await answer(agent, shutdown.id, 'ready');
    const stopped = await untilStatus(agent, 'stopped');
    expect(stopped.latestBuild).toMatchObject({
      transition: 'stop',
      initiator: 'system',
      reason: expect.stringMatching(/^stopped because it was idle; the last activity was its start/),
    });
    expect(stopped.reason).toMatch(/^Stopped because it was idle; .*\.$/);
    expect(await kinds(agent)).toEqual(['stopped', 'stop-decided', 'started']);
    const { body } = await call(admin, 'GET', '/api/v1/audit?action=cleanup.stop-idle');
    expect(body.items).toMatchObject([{ actor: 'system', targetName: agent.name }]);
  });

  test('says why it is awake and when it stops', async () => {
    const agent = await running();
    pass(minute);
    agent.signals['terminal-input'] = clock;
    pass(2 * minute);
    await report(agent);
    const expected = {
      awakeBecause: { kind: 'signal', signal: 'terminal-input', by: 'ada' },
      stopsAt: new Date(clock + 28 * minute).toISOString(),
      cause: 'idle',
      waitsForReport: false,
    };
    expect((await show(agent)).idle).toMatchObject(expected);
    expect(await activity(agent)).toMatchObject({
      state: expected,
      policy: { stopAfterSeconds: 1800, limited: [] },
      signals: expect.arrayContaining([
        { signal: 'terminal-input', source: 'person', by: 'ada', lastAt: expect.any(String) },
      ]),
    });
  });

  test('that nothing stops still says what is active in it', async () => {
    const agent = await running();
    await call(ada, 'PUT', `/api/v1/workspaces/${agent.name}/idle-policy`, { stopAfterSeconds: null });
    for (let key = 0; key < 2; key++) {
      pass(5 * minute);
      agent.signals['terminal-input'] = clock;
      await report(agent);
      expect((await show(agent)).idle).toMatchObject({
        stopsAt: null,
        awakeBecause: { at: new Date(clock).toISOString() },
      });
    }
  });

  test('costs a few bytes a report while nothing changes', async () => {
    const agent = await running();
    agent.signals['terminal-input'] = clock;
    const { revision } = await report(agent);
    pass(15 * minute);
    expect(await report(agent, revision)).toBeNull();
    expect(await report(agent, 'another')).toMatchObject({ stopsInMs: 15 * minute, revision });
    const { body: lease } = await call(ada, 'POST', `/api/v1/workspaces/${agent.name}/leases`, {
      seconds: 3600,
    });
    const held = await report(agent, revision);
    expect(held.stopsInMs).toBeGreaterThan(60 * minute);
    expect(await report(agent, held.revision)).toBeNull();
    await call(ada, 'DELETE', `/api/v1/workspaces/${agent.name}/leases/${lease.id}`);
    const { revision: last } = await report(agent, held.revision);
    // Shortly before the stop every reply says when it is, and the reports count for the decision.
    pass(29 * minute);
    expect(await report(agent, last)).toMatchObject({ stopsInMs: minute });
    pass(minute);
    await report(agent, last);
    await sweep();
    const { shutdown } = await report(agent, last);
    expect(shutdown).toMatchObject({ cause: 'idle', idleSinceAgeMs: 30 * minute });
  });

  test('whose agent has been replaced, or is unknown, gets no answer to a report that only refers to another', async () => {
    const agent = await running();
    const { revision } = await report(agent);
    await database.pool.query(
      'UPDATE workspace_activity SET build_id = NULL WHERE workspace_id IN (SELECT id FROM workspaces WHERE name = $1)',
      [agent.name],
    );
    expect(await report(agent, revision)).toBeUndefined();
    expect(await report(agent)).toMatchObject({ stopsInMs: 30 * minute });
    expect(await report(agent, revision)).not.toBeUndefined();
  });

  test('whose agent is silent is not stopped: missing data is not idleness', async () => {
    const agent = await running();
    await report(agent);
    pass(10 * 60 * minute);
    await sweep();
    await sweep();
    expect(await show(agent)).toMatchObject({ status: 'running', idle: { waitsForReport: true } });
    expect(await kinds(agent)).toEqual(['report-missing', 'started']);
    agent.signals['process-cpu'] = clock - minute;
    expect(await report(agent)).toMatchObject({ stopsInMs: 29 * minute, shutdown: null });
    await sweep();
    expect((await show(agent)).idle.waitsForReport).toBe(false);
  });
});

describe('activity during the decision', () => {
  async function due() {
    const agent = await running();
    pass(30 * minute);
    await report(agent);
    await sweep();
    const { shutdown } = await report(agent);
    return { agent, id: shutdown.id as string };
  }

  test('wins if the agent vetoes', async () => {
    const { agent, id } = await due();
    agent.signals['terminal-input'] = clock;
    await answer(agent, id, 'vetoed');
    await sweep();
    expect(await show(agent)).toMatchObject({ status: 'running' });
    expect((await report(agent)).shutdown).toBeNull();
    expect(await events(agent)).toContainEqual(
      expect.objectContaining({
        kind: 'stop-vetoed',
        text: expect.stringContaining('terminal input by ada'),
      }),
    );
  });

  test('wins if an ordinary report brings it', async () => {
    const { agent } = await due();
    agent.signals.sync = clock;
    expect((await report(agent)).shutdown).toBeNull();
    expect(await kinds(agent)).toContain('stop-vetoed');
  });

  test('wins over an answer of ready that already carries it', async () => {
    const { agent, id } = await due();
    agent.signals['editor-input'] = clock;
    await answer(agent, id, 'ready');
    await sweep();
    expect(await show(agent)).toMatchObject({ status: 'running', desired: 'running' });
  });

  test('a lease wins too', async () => {
    const { agent, id } = await due();
    const { status } = await call(ada, 'POST', `/api/v1/workspaces/${agent.name}/leases`, { seconds: 3600 });
    expect(status).toBe(201);
    expect((await report(agent)).shutdown).toBeNull();
    await answer(agent, id, 'ready');
    expect(await show(agent)).toMatchObject({ status: 'running' });
  });

  test('an agent that does not answer is asked again, and nothing is stopped', async () => {
    const { agent, id } = await due();
    pass(2 * minute);
    await sweep();
    expect(await show(agent)).toMatchObject({ status: 'running' });
    await report(agent);
    await sweep();
    const again = (await report(agent)).shutdown.id;
    expect(again).not.toBe(id);
    // A late answer to the first request means nothing.
    await answer(agent, id, 'ready');
    expect(await show(agent)).toMatchObject({ status: 'running' });
  });

  /** A replica died between the agent's answer and the request of the stop. */
  const loseRequest = (agent: Agent) =>
    database.pool.query(
      `UPDATE workspace_activity SET pending_stop = jsonb_set(pending_stop, '{ready}', 'true')
        WHERE workspace_id = (SELECT id FROM workspaces WHERE name = $1)`,
      [agent.name],
    );

  /** The server's own sweep would act on what is only half done. */
  async function withoutSweeps(work: () => Promise<unknown>): Promise<void> {
    const client = await database.pool.connect();
    try {
      await client.query('SELECT pg_advisory_lock($1)', [sweepLockKey]);
      await work();
      await client.query('SELECT pg_advisory_unlock($1)', [sweepLockKey]);
    } finally {
      client.release();
    }
  }

  test('wins if it comes after the agent was ready and before the stop was requested', async () => {
    const { agent } = await due();
    await withoutSweeps(async () => {
      await loseRequest(agent);
      agent.signals['terminal-input'] = clock;
      await report(agent);
    });
    await sweep();
    expect(await show(agent)).toMatchObject({ status: 'running', desired: 'running' });
    expect(await kinds(agent)).toContain('stop-vetoed');
  });

  test('a lease wins at that moment too', async () => {
    const { agent } = await due();
    await withoutSweeps(async () => {
      await loseRequest(agent);
      await call(ada, 'POST', `/api/v1/workspaces/${agent.name}/leases`, { seconds: 3600 });
    });
    await sweep();
    expect(await show(agent)).toMatchObject({ status: 'running', desired: 'running' });
  });

  test('what was decided about an earlier run stops no later one', async () => {
    const { agent } = await due();
    await withoutSweeps(async () => {
      await loseRequest(agent);
      await call(ada, 'POST', `/api/v1/workspaces/${agent.name}/restart`);
    });
    await arrives(agent);
    pass(minute);
    await report(agent);
    await sweep();
    expect(await show(agent)).toMatchObject({ status: 'running', desired: 'running' });
  });

  test('a replica that dies after the agent is ready loses nothing: the next sweep stops it once', async () => {
    const { agent } = await due();
    await loseRequest(agent);
    await Promise.all([sweep(), sweep()]);
    await untilStatus(agent, 'stopped');
    const { body } = await call(ada, 'GET', `/api/v1/workspaces/${agent.name}/builds`);
    expect(body.items.map((build: any) => build.transition)).toEqual(['stop', 'start']);
  });
});

describe('leases', () => {
  test('keep a workspace awake, are shown to everyone, and can be ended', async () => {
    const agent = await running();
    await report(agent);
    const { body: lease } = await call(ada, 'POST', `/api/v1/workspaces/${agent.name}/leases`, {
      seconds: 3 * 3600,
      reason: 'a long build',
    });
    expect(await report(agent)).toMatchObject({ stopsInMs: (180 + 30) * minute });
    expect(await activity(agent)).toMatchObject({
      leases: [{ id: lease.id, by: 'ada', reason: 'a long build' }],
    });
    expect((await call(ada, 'DELETE', `/api/v1/workspaces/${agent.name}/leases/${lease.id}`)).status).toBe(
      204,
    );
    expect((await report(agent)).stopsInMs).toBe(30 * minute);
    expect(await kinds(agent)).toEqual(['lease-ended', 'lease-granted', 'started']);
    const { body: audit } = await call(admin, 'GET', `/api/v1/audit?target=${agent.name}`);
    const entries = audit.items.filter(({ action }: { action: string }) => action.includes('keep-awake'));
    expect(entries).toMatchObject([
      { action: 'workspace.keep-awake-end', actor: 'ada', before: { by: 'ada', reason: 'a long build' } },
      { action: 'workspace.keep-awake', actor: 'ada', after: { for: '3 h', reason: 'a long build' } },
    ]);
    expect((await call(ada, 'DELETE', `/api/v1/workspaces/${agent.name}/leases/${lease.id}`)).body.code).toBe(
      'lease-not-found',
    );
  });

  test('are renewed without another entry in the history and the audit log', async () => {
    const agent = await running();
    await report(agent);
    const path = `/api/v1/workspaces/${agent.name}/leases`;
    const { body: first } = await call(ada, 'POST', path, { seconds: 600, reason: 'a job' });
    pass(5 * minute);
    const { body: next } = await call(ada, 'POST', path, { seconds: 600, renews: first.id });
    expect(next).toMatchObject({ id: first.id, reason: 'a job' });
    expect(Date.parse(next.expiresAt) - Date.parse(next.createdAt)).toBe(10 * minute);
    expect((await activity(agent)).leases).toHaveLength(1);
    // Only by those who hold it.
    const { body: other } = await call(admin, 'POST', `/api/v1/workspaces/ada~${agent.name}/leases`, {
      seconds: 600,
      renews: first.id,
    });
    expect(other).toMatchObject({ by: 'adm' });
    expect(other.id).not.toBe(first.id);
    pass(11 * minute);
    const { body: later } = await call(ada, 'POST', path, {
      seconds: 600,
      reason: 'a job',
      renews: first.id,
    });
    expect(later.id).not.toBe(first.id);
    expect((await kinds(agent)).filter((kind) => kind === 'lease-granted')).toHaveLength(3);
    const { body: audit } = await call(
      admin,
      'GET',
      `/api/v1/audit?action=workspace.keep-awake&target=${agent.name}`,
    );
    expect(audit.items).toHaveLength(3);
  });

  test('say when the maximum run time ends them', async () => {
    const agent = await running('bounded');
    await report(agent);
    const lease = (seconds: number) =>
      call(ada, 'POST', `/api/v1/workspaces/${agent.name}/leases`, { seconds });
    expect((await lease(3600)).body.runEndsAt).toBeNull();
    const runEndsAt = new Date(agent.startedAt + 120 * minute).toISOString();
    expect((await lease(3 * 3600)).body).toMatchObject({ runEndsAt });
    expect((await activity(agent)).leases).toMatchObject([{ runEndsAt: null }, { runEndsAt }]);
  });

  test('programs in the workspace need no credential of the user', async () => {
    const agent = await running();
    const { status, body } = await call(agent, 'POST', '/api/v1/agent/leases', { seconds: 600 });
    expect([status, body.by]).toEqual([201, 'workspace']);
    expect((await call(agent, 'DELETE', `/api/v1/agent/leases/${body.id}`)).status).toBe(204);
    const { body: audit } = await call(
      admin,
      'GET',
      `/api/v1/audit?action=workspace.keep-awake*&target=${agent.name}`,
    );
    expect(audit.items).toMatchObject([
      { action: 'workspace.keep-awake-end', actor: 'agent', before: { id: body.id, by: 'workspace' } },
      { action: 'workspace.keep-awake', actor: 'agent', after: { id: body.id, for: '10 min' } },
    ]);
  });

  test('are bounded in length and number', async () => {
    const agent = await running();
    const path = `/api/v1/workspaces/${agent.name}/leases`;
    expect((await call(ada, 'POST', path, { seconds: 25 * 3600 })).body.code).toBe('lease-too-long');
    for (let held = 0; held < 96; held++) await call(ada, 'POST', path, { seconds: 60 });
    // Requests at the same time count each other.
    const replies = await Promise.all(
      Array.from({ length: 8 }, () => call(ada, 'POST', path, { seconds: 60 })),
    );
    expect(replies.map(({ body }) => body.code).filter((code) => code === 'too-many-leases')).toHaveLength(4);
  });
});

describe('other stops', () => {
  test('the maximum run time stops a busy workspace, also while its agent is silent', async () => {
    const agent = await running('bounded');
    agent.signals['process-cpu'] = clock + 119 * minute;
    pass(119 * minute);
    expect(await report(agent)).toMatchObject({ stopsInMs: minute, cause: 'max-run', extendable: false });
    pass(minute);
    await sweep();
    const { latestBuild } = await untilStatus(agent, 'stopped');
    expect(latestBuild.reason).toBe('stopped because it had reached its maximum run time');
  });

  test('the log of a stop has how its shutdown script ended', async () => {
    const agent = await running('tidy');
    pass(30 * minute);
    await report(agent);
    await sweep();
    const { shutdown } = await report(agent);
    await call(agent, 'POST', '/api/v1/agent/shutdown', {
      id: shutdown.id,
      state: 'ready',
      activity: activityOf(agent),
      exitCode: 3,
      timedOut: false,
    });
    const { latestBuild } = await untilStatus(agent, 'stopped');
    await until(
      async () => (await call(ada, 'GET', `/api/v1/builds/${latestBuild.id}/log`)).body.lines,
      (lines: { text: string }[]) =>
        lines.some(({ text }) => text === 'the shutdown script ended with exit code 3'),
    );
  });

  test('a stop that a person requests runs the shutdown script first', async () => {
    const agent = await running('tidy');
    await report(agent);
    const waiting = call(agent, 'POST', '/api/v1/agent/shutdown/wait', {});
    await call(ada, 'POST', `/api/v1/workspaces/${agent.name}/stop`);
    const { shutdown } = (await waiting).body;
    expect(shutdown).toMatchObject({ cause: 'request', script: 'echo bye', timeoutMs: 20_000 });
    expect(provider.calls).not.toContain('stop');
    await call(agent, 'POST', '/api/v1/agent/logs', {
      process: 'p',
      lines: [
        { seq: 1, at: new Date(clock).toISOString(), source: 'shutdown', stream: 'stdout', text: 'bye' },
      ],
    });
    const { latestBuild } = await show(agent);
    const { body: log } = await call(ada, 'GET', `/api/v1/builds/${latestBuild.id}/log`);
    expect(log.lines).toContainEqual(expect.objectContaining({ source: 'shutdown', text: 'bye' }));
    await answer(agent, shutdown.id, 'ready');
    await untilStatus(agent, 'stopped');
    expect(provider.calls).toContain('stop');
  });
});

describe('a shutdown script', () => {
  const files = (script: string) => ({
    'template.yaml': `${template('saving')}shutdown:\n  script: ${script}\n  timeout: 20s\n`,
  });
  beforeAll(async () => {
    await call(admin, 'POST', '/api/v1/templates', { files: files('echo saved') });
  });

  test.each([
    ['restart', undefined],
    ['update', { force: true }],
  ])('runs before a %s ends what runs', async (change, body) => {
    const agent = await running('saving');
    await report(agent);
    const { body: published } = await call(admin, 'POST', '/api/v1/templates', {
      files: files(`echo ${change}`),
    });
    await call(admin, 'POST', `/api/v1/templates/saving/versions/${published.number}/activate`, {});
    const waiting = call(agent, 'POST', '/api/v1/agent/shutdown/wait', {});
    const { body: build } = await call(ada, 'POST', `/api/v1/workspaces/${agent.name}/${change}`, body);
    const { shutdown } = (await waiting).body;
    // That of the version that runs, not of the one that follows.
    expect(shutdown).toMatchObject({ cause: 'request', idleSinceAgeMs: null, timeoutMs: 20_000 });
    expect(shutdown.script).not.toBe(`echo ${change}`);
    expect(provider.launches).toEqual([]);
    await call(agent, 'POST', '/api/v1/agent/logs', {
      process: 'p',
      lines: [
        { seq: 1, at: new Date(clock).toISOString(), source: 'shutdown', stream: 'stdout', text: 'saved' },
      ],
    });
    await call(agent, 'POST', '/api/v1/agent/shutdown', {
      id: shutdown.id,
      state: 'ready',
      activity: activityOf(agent),
      exitCode: 3,
      timedOut: false,
    });
    await arrives(agent);
    const { body: log } = await call(ada, 'GET', `/api/v1/builds/${build.id}/log`);
    const texts = log.lines.map(({ text }: { text: string }) => text);
    expect(texts).toEqual(
      expect.arrayContaining([
        'running the shutdown script',
        'saved',
        'the shutdown script ended with exit code 3',
      ]),
    );
  });

  test('of an agent that is silent does not delay a restart', async () => {
    const agent = await running('saving');
    await report(agent);
    pass(2 * minute);
    await call(ada, 'POST', `/api/v1/workspaces/${agent.name}/restart`);
    await arrives(agent);
  });
});

describe('the brake', () => {
  test('holds back stops beyond the share of running workspaces, until an admin releases them', async () => {
    const agents: Agent[] = [];
    for (let made = 0; made < 7; made++) agents.push(await running());
    // Earlier tests stopped some within the brake's window.
    pass(30 * minute);
    for (const agent of agents) await report(agent);
    await sweep();
    const { body } = await call(admin, 'GET', '/api/v1/cleanup/preview');
    expect(body.items.filter(({ action }: { action: string }) => action === 'hold').length).toBe(2);
    const requests = await Promise.all(agents.map(async (agent) => (await report(agent)).shutdown));
    expect(requests.filter(Boolean).length).toBe(5);
    // A workspace that is no longer due is not released.
    const { body: bounds } = await call(admin, 'GET', '/api/v1/cleanup/policy');
    await call(admin, 'PUT', '/api/v1/cleanup/policy', { ...bounds, minStopAfterSeconds: 3600 });
    expect((await call(admin, 'POST', '/api/v1/cleanup/release', {})).body).toEqual({ released: 0 });
    const { etag: _, ...restored } = bounds;
    await call(admin, 'PUT', '/api/v1/cleanup/policy', restored);
    for (const agent of agents) await report(agent);
    await sweep();
    expect((await call(admin, 'POST', '/api/v1/cleanup/release', {})).body).toEqual({ released: 2 });
    const { body: audit } = await call(admin, 'GET', '/api/v1/audit?action=cleanup.release');
    expect(audit.items).toMatchObject([
      { actor: 'adm', after: { released: 2 } },
      { actor: 'adm', after: { released: 0 } },
    ]);
    expect(
      (await Promise.all(agents.map(async (agent) => (await report(agent)).shutdown))).every(Boolean),
    ).toBe(true);
    const refused = await call(ada, 'GET', '/api/v1/cleanup/preview');
    expect(refused).toMatchObject({
      status: 403,
      body: {
        detail:
          'This requires cleanup:read, which the roles owner, template-admin and auditor have. Yours is member.',
      },
    });
  });

  test('does not count the stops that an admin has released', async () => {
    // Earlier tests stopped some within the brake's window.
    pass(30 * minute);
    const [first, later]: [Agent[], Agent[]] = [[], []];
    for (let made = 0; made < 7; made++) first.push(await running());
    for (let made = 0; made < 5; made++) later.push(await running());
    pass(11 * minute);
    for (const agent of later) agent.signals['terminal-input'] = clock;
    pass(19 * minute);
    const requestsOf = async (agents: Agent[]) => {
      for (const agent of agents) await report(agent);
      await sweep();
      const found = await Promise.all(
        agents.map(async (agent) => [agent, (await report(agent)).shutdown] as const),
      );
      return found.filter(([, shutdown]) => shutdown !== null);
    };
    for (const agent of later) await report(agent);
    const asked = await requestsOf(first);
    expect(asked).toHaveLength(5);
    for (const [agent, { id }] of asked) await answer(agent, id, 'ready');
    pass(6 * minute);
    expect((await call(admin, 'POST', '/api/v1/cleanup/release', {})).body).toEqual({ released: 2 });
    const released = first.filter((agent) => !asked.some(([each]) => each === agent));
    for (const agent of released) await answer(agent, (await report(agent)).shutdown.id, 'ready');
    expect(await events(released[0]!)).toContainEqual(
      expect.objectContaining({ kind: 'stop-decided', by: 'adm' }),
    );
    // The five are out of the window, and the two would leave only three.
    pass(5 * minute);
    expect(await requestsOf(later)).toHaveLength(5);
  });
});

test('warnings are given 15 and 5 minutes ahead, once', async () => {
  const agent = await running();
  expect((await report(agent)).warnBeforeMs).toEqual([15 * minute, 5 * minute]);
  for (const ms of [14 * minute, minute, 5 * minute, 5 * minute, minute]) {
    pass(ms);
    await report(agent);
    await sweep();
  }
  const warnings = (await events(agent)).filter(({ kind }) => kind === 'warned');
  expect(warnings.map(({ text }) => text)).toEqual(['stops in 5 min', 'stops in 15 min']);
});

test('only warnings shorter than the idle period are given', async () => {
  const agent = await running();
  await call(ada, 'PUT', `/api/v1/workspaces/${agent.name}/idle-policy`, { stopAfterSeconds: 600 });
  expect((await report(agent)).warnBeforeMs).toEqual([5 * minute]);
  for (let key = 0; key < 3; key++) {
    pass(minute);
    agent.signals['terminal-input'] = clock;
    await report(agent);
    await sweep();
  }
  expect(await kinds(agent)).not.toContain('warned');
});

test('choices of the owner win over the template, and are audited', async () => {
  const agent = await running();
  await report(agent);
  const chosen = await call(ada, 'PUT', `/api/v1/workspaces/${agent.name}/idle-policy`, {
    stopAfterSeconds: 7200,
  });
  expect(chosen.body).toMatchObject({
    policy: { stopAfterSeconds: 7200 },
    choices: { stopAfterSeconds: 7200 },
  });
  expect(await report(agent)).toMatchObject({ stopsInMs: 120 * minute });
  const { body } = await call(
    admin,
    'GET',
    `/api/v1/audit?action=workspace.idle-policy&target=${agent.name}`,
  );
  expect(body.items).toMatchObject([{ actor: 'ada', after: { stopAfterSeconds: 7200 } }]);
});

test('a schedule starts a stopped workspace, keeps it awake for an hour, and stops it after hours', async () => {
  const agent = await running();
  // A Monday, 07:00 in Vienna.
  const monday = Date.UTC(2027, 0, 11, 6);
  await call(ada, 'POST', `/api/v1/workspaces/${agent.name}/stop`);
  await untilStatus(agent, 'stopped');
  clock = monday;
  await call(ada, 'PUT', `/api/v1/workspaces/${agent.name}/idle-policy`, {
    schedule: { start: '08:30', stop: '19:00', timeZone: 'Europe/Vienna' },
  });
  await sweep();
  expect(await show(agent)).toMatchObject({ status: 'stopped' });
  pass(91 * minute);
  await sweep();
  await arrives(agent);
  const { latestBuild } = await untilStatus(agent, 'running');
  expect(latestBuild).toMatchObject({ initiator: 'system', reason: 'daily start' });
  expect(await report(agent)).toMatchObject({ stopsInMs: 90 * minute, cause: 'idle' });
  expect((await activity(agent)).leases).toMatchObject([{ by: 'schedule' }]);
});

test('a workspace that no person has used for long becomes dormant, and a start brings it back with its home', async () => {
  const agent = await running('dormant');
  await report(agent);
  await call(ada, 'POST', `/api/v1/workspaces/${agent.name}/stop`);
  await untilStatus(agent, 'stopped');
  pass(29 * 24 * 60 * minute);
  await sweep();
  expect(provider.calls).not.toContain('remove keep');
  pass(2 * 24 * 60 * minute);
  const { body: preview } = await call(admin, 'GET', '/api/v1/cleanup/preview');
  expect(preview.items).toContainEqual(
    expect.objectContaining({ workspace: `ada/${agent.name}`, action: 'make-dormant' }),
  );
  // If it cannot be done, the workspace stays as it is, and it is tried again a day later.
  provider.nextMoves.push({
    kind: 'failed',
    error: { code: 'cluster-away', message: 'The cluster is unreachable.', fault: 'system' },
  });
  await sweep();
  await until(
    () => show(agent),
    ({ latestBuild }) => latestBuild.status === 'failed',
  );
  expect(await show(agent)).toMatchObject({ status: 'stopped' });
  pass(60 * minute);
  await sweep();
  expect((await show(agent)).latestBuild.status).toBe('failed');
  pass(24 * 60 * minute);
  await sweep();
  const dormant = await until(
    () => show(agent),
    ({ reason }) => reason?.startsWith('Dormant'),
  );
  expect(dormant).toMatchObject({ status: 'stopped', latestBuild: { initiator: 'system' } });
  expect(provider.calls).toContain('remove keep');
  expect(await kinds(agent)).toContain('dormant');
  const launches = provider.launches.length;
  await call(ada, 'POST', `/api/v1/workspaces/${agent.name}/start`);
  await until(
    async () => provider.launches.length,
    (count) => count > launches,
  );
  expect(provider.specs.at(-1)).toMatchObject({ restore: { workspaceId: dormant.id } });
});

describe('a running workspace that no person has used for long', () => {
  /** Something has worked in it for 30 days. */
  async function due() {
    const agent = await running('dormant');
    await report(agent);
    pass(30 * 24 * 60 * minute - 10 * minute);
    agent.signals['process-cpu'] = clock;
    expect(await report(agent)).toMatchObject({ cause: 'dormant', extendable: true });
    await sweep();
    expect(await kinds(agent)).toContain('warned');
    pass(10 * minute);
    agent.signals['process-cpu'] = clock;
    await report(agent);
    await sweep();
    const { shutdown } = await report(agent);
    // Work does not veto it.
    expect(shutdown).toMatchObject({ cause: 'dormant', idleSinceAgeMs: null });
    return { agent, id: shutdown.id as string };
  }

  test('is stopped, although something works in it, and made dormant right after that', async () => {
    const { agent, id } = await due();
    agent.signals['process-cpu'] = clock;
    await answer(agent, id, 'ready');
    const dormant = await until(
      () => show(agent),
      ({ reason }) => reason?.startsWith('Dormant'),
    );
    expect(dormant).toMatchObject({ status: 'stopped', latestBuild: { transition: 'stop' } });
    expect(provider.calls).toEqual(expect.arrayContaining(['stop', 'remove keep']));
    expect((await activity(agent)).dormantAt).not.toBeNull();
    const { body } = await call(admin, 'GET', '/api/v1/audit?action=cleanup.stop-dormant');
    expect(body.items).toMatchObject([{ actor: 'system', targetName: agent.name }]);
  });

  test('stays if a person is there in the second of the decision', async () => {
    const { agent, id } = await due();
    agent.signals['terminal-input'] = clock;
    await answer(agent, id, 'ready');
    await sweep();
    expect(await show(agent)).toMatchObject({ status: 'running', desired: 'running' });
    expect(await kinds(agent)).toContain('stop-vetoed');
  });

  test('stays while a keep-awake is active, and while its agent is silent', async () => {
    const kept = await running('dormant');
    const silent = await running('dormant');
    await report(silent);
    pass(30 * 24 * 60 * minute - 60 * minute);
    kept.signals['process-cpu'] = clock;
    await report(kept);
    await call(ada, 'POST', `/api/v1/workspaces/${kept.name}/leases`, { seconds: 2 * 3600 });
    pass(61 * minute);
    kept.signals['process-cpu'] = clock;
    expect(await report(kept)).toMatchObject({ cause: 'dormant', stopsInMs: 59 * minute, shutdown: null });
    await sweep();
    expect(await show(kept)).toMatchObject({ status: 'running' });
    expect(await show(silent)).toMatchObject({ status: 'running' });
  });
});

test('never-stop has an owner and a bound, which counts from the choice', async () => {
  const agent = await running();
  await report(agent);
  const path = `/api/v1/workspaces/${agent.name}/idle-policy`;
  const until = (days: number) => new Date(clock + days * 24 * 60 * minute).toISOString();
  const asked = await call(ada, 'PUT', path, { neverStop: { until: until(31), reason: 'a demo' } });
  expect(asked.body).toMatchObject({
    code: 'bad-request',
    message: 'A workspace can run without a stop for at most 30 days.',
  });
  const neverStop = { until: until(30), reason: 'a demo' };
  const chosen = await call(ada, 'PUT', path, { neverStop });
  expect(chosen.body.policy.neverStop).toEqual({ ...neverStop, by: 'ada' });
  pass(10 * 24 * 60 * minute);
  // Another choice beside it leaves it as it is.
  await call(ada, 'PUT', path, { neverStop, startOnConnect: true });
  await report(agent);
  await sweep();
  expect(await activity(agent)).toMatchObject({
    policy: { neverStop: { until: neverStop.until } },
    state: { awakeBecause: { kind: 'never-stop' } },
  });
});

test('workspaces whose agents stay silent do not keep others from being stopped', async () => {
  const silent = await running();
  const idle = await running();
  await report(silent);
  pass(31 * minute);
  await sweep();
  pass(2 * minute);
  await sweep();
  await report(idle);
  await sweep();
  const { shutdown } = await report(idle);
  await answer(idle, shutdown.id, 'ready');
  await untilStatus(idle, 'stopped');
  expect(await kinds(silent)).toEqual(['report-missing', 'started']);
  // Once it reports, it is decided as usual.
  await report(silent);
  await sweep();
  expect((await report(silent)).shutdown).not.toBeNull();
});

test('a maximum run time that an admin lowers stops no workspace without a warning', async () => {
  const agent = await running();
  await report(agent);
  const { body } = await call(admin, 'GET', '/api/v1/cleanup/policy');
  const { etag: _, ...bounds } = body;
  pass(20 * minute);
  agent.signals['terminal-input'] = clock;
  await call(admin, 'PUT', '/api/v1/cleanup/policy', { ...bounds, maxRunSeconds: 120 });
  try {
    expect(await report(agent)).toMatchObject({ stopsInMs: 15 * minute, cause: 'max-run' });
    await sweep();
    expect(await show(agent)).toMatchObject({ status: 'running' });
    expect(await kinds(agent)).toContain('warned');
    pass(15 * minute);
    await sweep();
    expect(await untilStatus(agent, 'stopped')).toMatchObject({
      reason: 'Stopped because it had reached its maximum run time.',
    });
  } finally {
    await call(admin, 'PUT', '/api/v1/cleanup/policy', bounds);
    pass(16 * minute);
  }
});

test('a workspace that is stopped cannot be kept awake, and says when its schedule starts it', async () => {
  const agent = await running();
  await call(ada, 'POST', `/api/v1/workspaces/${agent.name}/stop`);
  await untilStatus(agent, 'stopped');
  const leased = await call(ada, 'POST', `/api/v1/workspaces/${agent.name}/leases`, { seconds: 60 });
  expect(leased.body).toMatchObject({
    code: 'workspace-not-running',
    actions: [{ kind: 'start-workspace' }],
  });
  await call(ada, 'PUT', `/api/v1/workspaces/${agent.name}/idle-policy`, {
    schedule: { start: '08:30', timeZone: 'Europe/Vienna' },
  });
  expect((await activity(agent)).startsAt).toMatch(/T0[67]:30:00/);
});
