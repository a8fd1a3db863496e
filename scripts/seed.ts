// npm run seed: fills a server with users, templates and workspaces in every state, for work on the dashboard and the CLI.
// It can run any number of times: what exists is left alone.
import { setTimeout } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { CallError, type Client, makeClient } from '@cde/api/client.ts';
import { postRecording } from '@cde/api/diagnosis.ts';
import type { Role } from '@cde/api/endpoint.ts';
import { createUser, updateUser } from '@cde/api/identity.ts';
import { sharePort } from '@cde/api/ports.ts';
import { addSatellite, drainSatellite } from '@cde/api/satellites.ts';
import { getTemplate, publishTemplate } from '@cde/api/templates.ts';
import {
  createWorkspace,
  deleteWorkspace,
  getWorkspace,
  startWorkspace,
  stopWorkspace,
  type Workspace,
} from '@cde/api/workspaces.ts';
import { chooseServer } from '@cde/cli/connection/connection.ts';
import { seedSession } from './seed-sessions.ts';

/** Anybody can read it here, so the server must be on this machine. */
const seedPassword = 'seed-password';

const help = `Fill a server with users, templates and workspaces in every state.

Usage: npm run seed -- [--churn] [--server URL]

  --churn       Afterwards start and stop a workspace until Ctrl-C, so that states
                that last a second can be seen too
  --server URL  The server to fill; the one that cde uses if not given.
                It must be on this machine, because the seeded users have a known password

Sign in as any seeded user with the password "${seedPassword}".
`;

const seededUsers: { username: string; name: string; role: Role; suspended?: boolean }[] = [
  { username: 'grace', name: 'Grace Hopper', role: 'template-admin' },
  { username: 'katherine', name: 'Katherine Johnson', role: 'auditor' },
  { username: 'linus', name: 'Linus Torvalds', role: 'member' },
  { username: 'barbara', name: 'Barbara Liskov', role: 'member' },
  { username: 'edsger', name: 'Edsger Dijkstra', role: 'member', suspended: true },
];

/** A template of the local provider. The message of a version names what is different about it. */
function localTemplate(name: string, title: string, script: string): Record<string, string> {
  const lines = script.split('\n').map((line) => `    ${line}`);
  return {
    'template.yaml': [
      `name: ${name}`,
      `title: ${title}`,
      'description: Made by npm run seed.',
      'provider: local',
      'parameters:',
      '  - name: memory',
      '    title: Memory (GiB)',
      '    type: number',
      '    integer: true',
      '    default: 1',
      '    min: 1',
      '    max: 16',
      'local:',
      `  memory: \${{ parameters.memory }}Gi`,
      'startup:',
      '  timeout: 24h',
      '  script: |',
      ...lines,
      '',
    ].join('\n'),
  };
}

const templates = {
  works: localTemplate('seed-works', 'Web service', 'echo "Installing packages"\necho "Ready"'),
  worksNewer: localTemplate(
    'seed-works',
    'Web service',
    'echo "Installing packages"\necho "Ready (version 2)"',
  ),
  fails: localTemplate(
    'seed-fails',
    'A startup script that fails',
    'echo "Fetching tools"\necho "curl: (6) Could not resolve host: tools.example" >&2\nexit 6',
  ),
  slow: localTemplate(
    'seed-slow',
    'A startup script that takes a day',
    'for i in $(seq 86400); do echo "Step $i"; sleep 1; done',
  ),
};

interface Seeded {
  name: string;
  owner: string | undefined;
  template: string;
  /** Steps after the creation, in order. */
  steps: ('settle' | 'stop' | 'delete' | 'share')[];
  state: string;
}

const workspaces: Seeded[] = [
  {
    name: 'outdated',
    owner: undefined,
    template: 'seed-works',
    steps: ['settle'],
    state: 'running on an old version',
  },
  { name: 'docs', owner: 'linus', template: 'seed-works', steps: ['settle', 'stop'], state: 'stopped' },
  { name: 'broken', owner: undefined, template: 'seed-fails', steps: ['settle'], state: 'failed' },
  { name: 'starting', owner: undefined, template: 'seed-slow', steps: [], state: 'starting' },
  {
    name: 'cancelled',
    owner: undefined,
    template: 'seed-slow',
    steps: ['stop'],
    state: 'stopped, its start cancelled',
  },
  {
    name: 'gone',
    owner: undefined,
    template: 'seed-works',
    steps: ['settle', 'delete'],
    state: 'deleted, its home retained',
  },
  {
    name: 'gone',
    owner: 'barbara',
    template: 'seed-works',
    steps: ['settle', 'delete'],
    state: 'deleted, its home retained',
  },
];
/** Created after version 2 of their template is active. */
const upToDate: Seeded[] = [
  {
    name: 'web',
    owner: undefined,
    template: 'seed-works',
    steps: ['settle', 'share'],
    state: 'running, port 8000 shared',
  },
  { name: 'api', owner: 'linus', template: 'seed-works', steps: ['settle'], state: 'running' },
  { name: 'api', owner: 'barbara', template: 'seed-works', steps: ['settle'], state: 'running' },
];

const { values } = parseArgs({
  options: { churn: { type: 'boolean' }, server: { type: 'string' }, help: { type: 'boolean', short: 'h' } },
});
if (values.help) {
  process.stdout.write(help);
} else {
  const stopped = new AbortController();
  process.once('SIGINT', () => stopped.abort());
  process.exitCode = await main(stopped.signal).catch((error) => {
    const { message, hint } =
      error instanceof CallError ? error.body : (error as { message: string; hint?: string });
    process.stderr.write(`${message}${hint ? `\n${hint}` : ''}\n`);
    return 1;
  });
}

async function main(signal: AbortSignal): Promise<number> {
  const chosen = chooseServer(process.env, values.server);
  const { hostname } = new URL(chosen.url);
  if (!['127.0.0.1', '[::1]', 'localhost'].includes(hostname)) {
    process.stderr.write(
      `${chosen.url} is not on this machine, and the seeded users have a password that everybody can read.\nStart a server with npm start, then run: npm run seed -- --server http://127.0.0.1:7080\n`,
    );
    return 2;
  }
  const client = makeClient({ url: chosen.url, token: chosen.token });
  const say = (text: string) => process.stdout.write(`${text}\n`);

  for (const { suspended, ...user } of seededUsers) {
    const made = await unlessPresent(() =>
      client.call(createUser, {
        body: { ...user, email: `${user.username}@example.com`, password: seedPassword },
      }),
    );
    say(
      `user       ${user.username}: ${user.role}${suspended ? ', suspended' : ''}${made ? '' : ' (was there)'}`,
    );
  }

  const isFresh = await seedTemplates(client, say);
  for (const one of workspaces) await seedWorkspace(client, one, signal, say);
  if (isFresh)
    await client.call(publishTemplate, { body: { files: templates.worksNewer, message: 'A newer version' } });
  for (const one of upToDate) await seedWorkspace(client, one, signal, say);
  // Sessions can only be reported for one's own workspaces.
  for (const name of ['outdated', 'web']) await seedSessions(client, chosen.url, name, say);

  // Suspended last, and after their workspaces: a suspended user cannot own a new one.
  for (const { username } of seededUsers.filter(({ suspended }) => suspended))
    await client.call(updateUser, { params: { user: username }, body: { status: 'suspended' } });

  for (const { name, drain } of [
    { name: 'seed-eu', drain: false },
    { name: 'seed-us', drain: true },
  ]) {
    const made = await unlessPresent(() =>
      client.call(addSatellite, { body: { name, region: name.slice(5) } }),
    );
    if (made && drain)
      await client.call(drainSatellite, { params: { satellite: name }, body: { draining: true } });
    say(`satellite  ${name}: never connected${drain ? ', draining' : ''}${made ? '' : ' (was there)'}`);
  }
  say(`\nSign in at ${chosen.url} as any of these users with the password "${seedPassword}".`);
  if (values.churn) await churn(client, signal, say);
  return 0;
}

/** Publishes what is not there. Returns whether the second version of seed-works is still to come. */
async function seedTemplates(client: Client, say: (text: string) => void): Promise<boolean> {
  let isFresh = false;
  for (const [key, files] of Object.entries(templates)) {
    if (key === 'worksNewer') continue;
    const name = files['template.yaml']!.match(/^name: (\S+)/)![1]!;
    const exists = await unlessMissing(() => client.call(getTemplate, { params: { template: name } }));
    if (!exists) await client.call(publishTemplate, { body: { files, message: 'The first version' } });
    if (!exists && key === 'works') isFresh = true;
    say(`template   ${name}${exists ? ' (was there)' : ''}`);
  }
  return isFresh;
}

async function seedWorkspace(
  client: Client,
  { name, owner, template, steps, state }: Seeded,
  signal: AbortSignal,
  say: (text: string) => void,
): Promise<void> {
  const made = await unlessPresent(() => client.call(createWorkspace, { body: { name, owner, template } }));
  const label = `workspace  ${owner ? `${owner}/` : ''}${name}: ${state}`;
  if (!made) return say(`${label} (was there)`);
  const params = { workspace: made.id };
  for (const step of steps) {
    if (step === 'settle') await settled(client, made.id, signal);
    if (step === 'stop') await client.call(stopWorkspace, { params });
    if (step === 'delete') await client.call(deleteWorkspace, { params });
    // Only its owner can share a port.
    if (step === 'share')
      await client.call(sharePort, { params: { ...params, port: 8000 }, body: { level: 'signed-in' } });
  }
  say(label);
}

/** A recorded session of the last three hours, with incidents. */
async function seedSessions(
  client: Client,
  serverUrl: string,
  name: string,
  say: (text: string) => void,
): Promise<void> {
  const { id } = await client.call(getWorkspace, { params: { workspace: name } });
  for (const body of seedSession(id, serverUrl))
    await client.call(postRecording, { params: { workspace: id }, body });
  say(`session    ${name}: three hours, with incidents`);
}

/** Waits until the last build of a workspace has ended, whatever its result. */
async function settled(client: Client, id: string, signal: AbortSignal): Promise<Workspace> {
  for (;;) {
    const workspace = await client.call(getWorkspace, { params: { workspace: id }, signal });
    if (workspace.latestBuild?.finishedAt) return workspace;
    await pause(200, signal);
  }
}

/** Changes a workspace of its own until it is interrupted, and deletes it then. */
async function churn(client: Client, signal: AbortSignal, say: (text: string) => void): Promise<void> {
  say('Starting and stopping a workspace until Ctrl-C.');
  const { id } = await client.call(createWorkspace, {
    body: { name: `churn-${process.pid}`, template: 'seed-works' },
  });
  const params = { workspace: id };
  try {
    for (const change of alternating([stopWorkspace, startWorkspace])) {
      await settled(client, id, signal);
      await pause(1_000, signal);
      if (signal.aborted) break;
      await client.call(change, { params });
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    await client.call(deleteWorkspace, { params, query: { home: 'discard' } });
  }
}

function* alternating<T>(items: readonly T[]): Generator<T> {
  for (;;) yield* items;
}

/** The result of a creation, or null if there is one of that name already. */
async function unlessPresent<T>(create: () => Promise<T>): Promise<T | null> {
  try {
    return await create();
  } catch (error) {
    if (error instanceof CallError && error.status === 409 && /-(exists|taken)$/.test(error.code))
      return null;
    throw error;
  }
}

async function unlessMissing<T>(read: () => Promise<T>): Promise<T | null> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof CallError && error.status === 404) return null;
    throw error;
  }
}

/** Resolves early when the signal is aborted. */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await setTimeout(ms, undefined, { signal }).catch(() => {});
}
