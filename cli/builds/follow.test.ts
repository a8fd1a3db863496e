import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { getTemplate } from '@cde/api/templates.ts';
import {
  cancelBuild,
  createWorkspace,
  deleteWorkspace,
  getBuildLog,
  getWorkspace,
  listBuilds,
  restartWorkspace,
  startWorkspace,
  stopWorkspace,
} from '@cde/api/workspaces.ts';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  cdePath,
  type FakeServer,
  makeFakeServer,
  makeTestHome,
  Refusal,
  type TestHome,
} from '../testing/cli.ts';
import { build, line, stage, template, workspace } from '../testing/objects.ts';

let home: TestHome;
let server: FakeServer;
let env: Record<string, string>;
beforeAll(async () => {
  home = await makeTestHome();
  server = await makeFakeServer();
  env = { CDE_URL: server.url, CDE_TOKEN: 'cde_stand-in' };
  server.on(getTemplate, () => template());
  server.on(createWorkspace, () => workspace());
  server.on(startWorkspace, () => build());
  server.on(getWorkspace, () => workspace({ status: 'running' }));
});
afterAll(async () => {
  expect(server.faults).toEqual([]);
  await server.close();
  await home.remove();
});

const ready = [stage('queued'), stage('render'), stage('provision'), stage('startup'), stage('ready')];
const good = build({ status: 'succeeded', stages: ready, finishedAt: '2026-01-01T00:01:00.000Z' });

/** Replies of the log, one after another; the last is repeated. */
function logReplies(...replies: { lines: ReturnType<typeof line>[]; build: typeof good; done: boolean }[]) {
  let next = 0;
  server.on(getBuildLog, ({ query }) => {
    const reply = replies[Math.min(next++, replies.length - 1)]!;
    return { ...reply, lines: reply.lines.filter(({ seq }) => seq > Number(query.after ?? 0)) };
  });
}

test('stages are printed as they end, with their durations', async () => {
  const half = build({ stages: [stage('queued'), stage('render', 'running')] });
  logReplies(
    { lines: [], build: half, done: false },
    { lines: [line(1, 'hello')], build: half, done: false },
    { lines: [], build: good, done: true },
  );
  const ran = await home.run(['create', 'web', '-t', 'local'], { env });
  expect(ran).toMatchObject({ code: 0, stdout: 'web is running. Connect: cde ssh web\n' });
  expect(ran.stderr.trim().split('\n')).toEqual([
    'Starting web (build 1)',
    ...['queued', 'render', 'provision', 'startup', 'ready'].map((name) => `web: ${name} succeeded (1.0 s)`),
  ]);
});

test('a build that fails shows the lines of the stage, the reason, and ends with 7', async () => {
  const failed = build({
    status: 'failed',
    stages: [stage('queued'), stage('startup', 'failed')],
    finishedAt: '2026-01-01T00:01:00.000Z',
    error: {
      code: 'startup-failed',
      message: 'The startup script failed with exit code 3.',
      hint: 'Correct it.',
      fault: 'user',
      stage: 'startup',
    },
  });
  logReplies({
    lines: [
      line(1, 'not of this stage', { stage: 'render' }),
      line(2, 'make: *** No rule'),
      line(3, 'The startup script failed with exit code 3. Correct it.', {
        source: 'server',
        level: 'error',
      }),
    ],
    build: failed,
    done: true,
  });
  const ran = await home.run(['start', 'web'], { env });
  expect(ran.code).toBe(7);
  expect(ran.stderr).toContain('startup   make: *** No rule');
  expect(ran.stderr).not.toContain('not of this stage');
  expect(ran.stderr).toContain('error: The startup script failed with exit code 3. [startup-failed]');
  expect(ran.stderr).toContain('→ The whole log: cde logs web --build 1');
  const json = await home.run(['start', 'web', '--json'], { env });
  expect(JSON.parse(json.stderr)).toMatchObject({ code: 'startup-failed', exitCode: 7 });
  expect(await home.run(['logs', 'web', '--follow'], { env })).toMatchObject({ code: 7 });
});

test('a short outage of the server does not end the wait', async () => {
  let asked = 0;
  server.on(getBuildLog, ({ hangUp }) => {
    asked += 1;
    return asked < 4 ? hangUp() : { lines: [], build: good, done: true };
  });
  expect(await home.run(['start', 'web'], { env })).toMatchObject({ code: 0, stdout: 'web is running.\n' });
});

/** Responses of a replica, or the proxy in front of it, while it is replaced. */
const rolling = [
  new Refusal(503, { error: 'Service Unavailable', message: 'Service Unavailable', statusCode: 503 }),
  new Refusal(502, '<html>Bad Gateway</html>'),
  new Refusal(503, { code: 'server-stopping', message: 'This server is stopping.' }, { 'retry-after': '0' }),
];
const commands = {
  create: ['create', 'web', '-t', 'local'],
  start: ['start', 'web'],
  stop: ['stop', 'web'],
  restart: ['restart', 'web'],
  delete: ['delete', 'web', '--yes'],
  logs: ['logs', 'web', '--follow'],
};
test.each(Object.entries(commands))('%s continues while a replica is replaced', async (_name, args) => {
  // Each endpoint fails three times first: a stopping replica, a proxy without a replica, no response.
  const interrupted = (answer: (query: Record<string, string>) => unknown) => {
    let asked = 0;
    return ({ hangUp, query }: { hangUp: () => never; query: any }) => {
      asked += 1;
      if (asked <= rolling.length) throw rolling[asked - 1];
      return asked === rolling.length + 1 ? hangUp() : answer(query);
    };
  };
  server.on(
    getBuildLog,
    interrupted(() => ({ lines: [], build: good, done: true })),
  );
  server.on(
    createWorkspace,
    interrupted(() => workspace()),
  );
  for (const endpoint of [startWorkspace, stopWorkspace, restartWorkspace, deleteWorkspace])
    server.on(
      endpoint,
      interrupted(() => build()),
    );
  server.on(
    listBuilds,
    interrupted(() => ({ items: [build()], next: null })),
  );
  const ran = await home.run(args, { env });
  expect(ran.stderr).not.toContain('error:');
  expect(ran.code).toBe(0);
  server.on(createWorkspace, () => workspace());
  server.on(startWorkspace, () => build());
});

test('Ctrl-C only stops waiting, and says how to continue', async () => {
  server.on(getBuildLog, ({ query }) =>
    Number(query.wait) > 0 ? new Promise(() => {}) : { lines: [], build: build(), done: false },
  );
  let cancelled = false;
  server.on(cancelBuild, () => {
    cancelled = true;
    return build();
  });
  const running = home.start(['start', 'web'], { env });
  await running.says('Starting web');
  running.child.kill('SIGINT');
  const ran = await running.ended;
  expect(ran.code).toBe(130);
  expect(ran.stderr).toContain('build 1 of web continues');
  expect(ran.stderr).toContain('cde logs web --follow');
  expect(cancelled).toBe(false);
});

test.skipIf(!existsSync('/usr/bin/script'))(
  'on a terminal lines are rewritten, in colour unless NO_COLOR',
  async () => {
    logReplies(
      { lines: [], build: build({ stages: ready }), done: false },
      { lines: [], build: good, done: true },
    );
    const onTerminal = (more: Record<string, string>) =>
      new Promise<string>((resolve) => {
        const command = `${process.execPath} ${cdePath} start web`;
        execFile(
          '/usr/bin/script',
          ['-qec', command, '/dev/null'],
          { env: { ...home.env, ...env, ...more } },
          (_error, out) => resolve(out),
        ).stdin?.end();
      });
    const coloured = await onTerminal({});
    expect(coloured).toContain('\u001b[32m✓');
    expect(coloured).toContain('\u001b[6A');
    const plain = await onTerminal({ NO_COLOR: '1' });
    expect(plain).toContain('✓ render');
    expect(plain).not.toContain('\u001b[32m');
  },
);
