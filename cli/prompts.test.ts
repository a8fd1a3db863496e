import { spawn, spawnSync } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { getWorkspaceActivity } from '@cde/api/activity.ts';
import { getTemplate, listTemplates } from '@cde/api/templates.ts';
import {
  createTicket,
  createWorkspace,
  deleteWorkspace,
  getWorkspace,
  startWorkspace,
  updateWorkspace,
} from '@cde/api/workspaces.ts';
import { beforeAll, describe, expect, test } from 'vitest';
import { cdePath, Refusal, startFakeServer } from './testing/cli.ts';
import { activity, build, template, workspace } from './testing/objects.ts';

// Prompts on a terminal, and the errors without one. util-linux's `script` provides the terminal.

const hasScript = spawnSync('script', ['--version']).status === 0;

const { home, server, env } = await startFakeServer();

/** Runs `cde` on a terminal, and types each answer once its question has appeared. */
function atTerminal(words: string[], answers: [question: string, answer: string][]) {
  return typeAtTerminal([process.execPath, cdePath, ...words], answers);
}

async function typeAtTerminal(words: string[], answers: [question: string, answer: string][]) {
  const line = words.map((word) => `'${word}'`).join(' ');
  const child = spawn('script', ['-qefc', line, '/dev/null'], {
    env: { ...home.env, ...env, NO_COLOR: '1' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let text = '';
  let from = 0;
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
    const [next] = answers;
    const at = next ? text.indexOf(next[0], from) : -1;
    if (!next || at < 0) return;
    answers.shift();
    from = at + next[0].length;
    child.stdin.write(`${next[1]}\r`);
  });
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, text: text.replaceAll('\r', '') };
}

const local = template();
const demanding = {
  ...local,
  name: 'demanding',
  title: 'Needs values',
  activeVersion: {
    ...local.activeVersion,
    parameters: [
      {
        name: 'size',
        type: 'string' as const,
        immutable: false,
        options: [
          { value: 'small', title: 'One core' },
          { value: 'large', title: 'Eight cores' },
        ],
      },
      { name: 'replicas', type: 'number' as const, integer: true, immutable: false, min: 1, max: 3 },
      ...local.activeVersion.parameters,
    ],
  },
};

describe('create', () => {
  let made: { template?: string; parameters?: unknown };
  beforeAll(() => {
    server.on(listTemplates, () => ({ items: [local, demanding], next: null }));
    server.on(getTemplate, ({ params }) => (params.template === 'local' ? local : demanding));
    server.on(createWorkspace, ({ body }) => {
      made = body;
      return workspace();
    });
  });

  test.runIf(hasScript)('chooses among templates and asks for what has no default', async () => {
    const ran = await atTerminal(
      ['create', 'web', '--no-wait'],
      [
        ['> ', '2'],
        ['> ', 'large'],
        ['replicas (1..3): ', 'many'],
        ['replicas (1..3): ', '2'],
      ],
    );
    expect(ran.text).toContain('1  local      Local\n  2  demanding  Needs values');
    expect(ran.text).toContain('The parameter replicas is a number, not "many".');
    expect(ran.code).toBe(0);
    expect(made).toMatchObject({ template: 'demanding', parameters: { size: 'large', replicas: 2 } });
  });

  test('without a terminal, or with --json, lists the choices', async () => {
    const several = await home.run(['create', 'web'], { env });
    expect(several).toMatchObject({ code: 2, stdout: '' });
    expect(several.stderr).toContain('Add --template with one of: local, demanding');
    const missing = await home.run(['create', 'web', '-t', 'demanding', '--json'], { env });
    expect(JSON.parse(missing.stderr)).toEqual({
      code: 'usage',
      message: 'The template needs values for the parameters size, replicas.',
      hint: 'Add --param size=VALUE (one of small, large)\nAdd --param replicas=VALUE (1..3)',
      exitCode: 2,
    });
  });
});

describe('confirmation comes after the checks', () => {
  test.runIf(hasScript)('delete of what does not exist fails without a question', async () => {
    server.on(getWorkspace, ({ params }) => {
      if (params.workspace === 'web') return workspace({ status: 'running' });
      throw new Refusal(404, { code: 'workspace-not-found', message: 'There is no workspace nope.' });
    });
    let deleted = 0;
    server.on(deleteWorkspace, () => {
      deleted++;
      return build({ transition: 'delete', status: 'succeeded', finishedAt: '2026-01-01T00:01:00.000Z' });
    });
    const nope = await atTerminal(['delete', 'web', 'nope'], []);
    expect(nope.code).toBe(3);
    expect(nope.text).not.toContain('[y/N]');
    const no = await atTerminal(['delete', 'web'], [['[y/N]', 'n']]);
    expect(no).toMatchObject({ code: 1, text: expect.stringContaining('Nothing was done.') });
    expect(deleted).toBe(0);
    expect((await atTerminal(['delete', 'web'], [['[y/N]', 'y']])).code).toBe(0);
    expect(deleted).toBe(1);
    // The same without a terminal.
    expect(await home.run(['delete', 'nope'], { env })).toMatchObject({ code: 3 });
    expect(await home.run(['delete', 'web'], { env })).toMatchObject({ code: 2 });
  });

  test('a template in use is not asked about', async () => {
    server.on(getTemplate, () => ({ ...local, workspaces: 2 }));
    expect(await home.run(['template', 'delete', 'local'], { env })).toMatchObject({
      code: 5,
      stderr: expect.stringContaining('2 workspaces use it.'),
    });
  });
});

test('update of an up-to-date workspace says that nothing was done; --force requests a build', async () => {
  const asked: unknown[] = [];
  const ended = { status: 'succeeded', finishedAt: '2026-01-01T00:01:00.000Z' } as const;
  server.on(getWorkspace, () => workspace({ status: 'running' }));
  server.on(updateWorkspace, ({ body }) => {
    asked.push(body);
    return build({ transition: 'update', ...ended });
  });
  const ran = await home.run(['update', 'web'], { env });
  expect(ran).toMatchObject({ code: 0, stderr: '' });
  expect(ran.stdout).toContain('web is up to date.');
  await home.run(['update', 'web', '--force'], { env });
  expect(asked).toEqual([{}, { force: true }]);
});

test('template validate needs neither server nor login', async () => {
  const folder = join(home.path, 'mine');
  await mkdir(folder);
  await writeFile(join(folder, 'template.yaml'), 'name: mine\nprovider: local\n');
  expect(await home.run(['template', 'validate', folder])).toMatchObject({
    code: 0,
    stdout: 'mine is valid: 0 parameters.\n',
  });
  await writeFile(join(folder, 'template.yaml'), 'name: mine\nprovider: local\nnonsense: 1\n');
  const broken = await home.run(['template', 'validate', folder]);
  expect(broken.code).toBe(1);
  expect(broken.stdout).toContain(`${join(folder, 'template.yaml')}:3:1: `);
  expect((await home.run(['template', 'validate', folder, '--cluster', 'x'])).code).toBe(1);
  await writeFile(join(folder, 'template.yaml'), 'name: mine\nprovider: local\n');
  expect(await home.run(['template', 'validate', folder, '--cluster', 'x'])).toMatchObject({
    code: 4,
    stderr: expect.stringContaining('[no-server]'),
  });
});

describe('a stopped workspace', () => {
  let starts = 0;
  let startsOnConnect = false;
  // Without the background process, which would outlive the test.
  const ssh = ['env', 'CDE_BACKGROUND=off', 'ssh', '-F', 'none'];
  const proxy = ['-o', `ProxyCommand=${process.execPath} ${cdePath} ssh --stdio web`];
  const question =
    'web was stopped because it was idle; the last activity was its start, 2 h before. Start it? [Y/n]';
  beforeAll(() => {
    server.on(createTicket, () => {
      throw new Refusal(409, { code: 'workspace-not-running', message: 'ada/web is stopped.' });
    });
    server.on(getWorkspace, () =>
      workspace({
        status: 'stopped',
        desired: 'stopped',
        latestBuild: build({
          transition: 'stop',
          status: 'succeeded',
          initiator: 'system',
          reason: 'stopped because it was idle; the last activity was its start, 2 h before',
          finishedAt: '2026-01-01T00:01:00.000Z',
        }),
      }),
    );
    server.on(getWorkspaceActivity, () =>
      activity({ policy: { ...activity().policy, startOnConnect: startsOnConnect } }),
    );
    server.on(startWorkspace, () => {
      starts++;
      throw new Refusal(403, { code: 'forbidden', message: 'That was a yes.' });
    });
  });

  test.runIf(hasScript)('is started by cde ssh if the user answers yes or presses Enter', async () => {
    starts = 0;
    const no = await atTerminal(['ssh', 'web'], [[question, 'n']]);
    expect(no).toMatchObject({ code: 5, text: expect.stringContaining('web is stopped.') });
    expect(starts).toBe(0);
    const enter = await atTerminal(['ssh', 'web'], [[question, '']]);
    expect(enter.text).toContain('That was a yes.');
    expect(starts).toBe(1);
    expect((await atTerminal(['ssh', '--start', 'web'], [])).text).not.toContain('[Y/n]');
    expect(starts).toBe(2);
  });

  test.runIf(hasScript)(
    'is started by an ssh that was just typed on a terminal, and by no other',
    async () => {
      starts = 0;
      const typed = await typeAtTerminal([...ssh, ...proxy, 'web.cde'], [[question, 'y']]);
      expect(typed.text).toContain('That was a yes.');
      expect(starts).toBe(1);
      const no = await typeAtTerminal([...ssh, ...proxy, 'web.cde'], [[question, 'n']]);
      expect(no.text).toContain('Start it: cde start web');
      expect(starts).toBe(1);

      startsOnConnect = true;
      await typeAtTerminal([...ssh, ...proxy, 'web.cde'], []);
      expect(starts).toBe(2);
      for (const words of [
        // Like VS Code, even in its terminal; a program's command; a loop without a terminal.
        [...ssh, ...proxy, '-T', '-D', '52341', 'web.cde'],
        [...ssh, ...proxy, 'web.cde', 'true'],
        [...ssh, ...proxy, '-o', 'BatchMode=yes', 'web.cde'],
        ['sh', '-c', [...ssh, ...proxy.map((word) => `"${word}"`), 'web.cde </dev/null'].join(' ')],
        ['setsid', '-w', ...ssh, ...proxy, 'web.cde'],
      ]) {
        const ran = await typeAtTerminal(words, []);
        expect(ran.text).toContain('Start it: cde start web');
        expect(ran.text).not.toContain('[Y/n]');
      }
      expect(starts).toBe(2);
    },
  );
});
