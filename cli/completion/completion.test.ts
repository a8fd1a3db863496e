import { execFile, execFileSync } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { listTemplates } from '@cde/api/templates.ts';
import { listWorkspaces } from '@cde/api/workspaces.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cdePath, makeStandIn, makeTestHome, type StandIn, type TestHome } from '../testing.ts';
import { template, workspace } from '../testing-objects.ts';

let home: TestHome;
let server: StandIn;
beforeAll(async () => {
  home = await makeTestHome();
  server = await makeStandIn();
  server.on(listTemplates, () => ({ items: [template()], next: null }));
  server.on(listWorkspaces, () => ({
    items: [workspace(), workspace({ owner: 'bob', name: 'api' })],
    next: null,
  }));
  await writeFile(join(home.path, 'cde'), `#!/bin/sh\nexec ${process.execPath} ${cdePath} "$@"\n`, {
    mode: 0o755,
  });
  for (const shell of ['bash', 'zsh', 'fish'])
    await writeFile(join(home.path, `cde.${shell}`), (await home.run(['completion', shell])).stdout);
  await mkdir(join(home.path, '.config', 'cde'), { recursive: true });
  await writeFile(
    join(home.path, '.config', 'cde', 'config.json'),
    JSON.stringify({
      version: 1,
      current: server.url,
      servers: { [server.url]: { token: 'cde_x', username: 'ada', source: 'given' } },
    }),
  );
});
afterAll(async () => {
  await server.close();
  await home.remove();
});

const has = (shell: string) => {
  try {
    execFileSync(shell, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
};

function offered(command: string, args: string[]): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const env = { ...home.env, PATH: `${home.path}:${home.env.PATH}` };
    execFile(command, args, { env, cwd: home.path, encoding: 'utf8' }, (error, stdout, stderr) =>
      error ? reject(new Error(stderr)) : resolve(stdout.split('\n').filter((line) => line !== '')),
    ).stdin?.end();
  });
}

const cases: [string, string[], string[]][] = [
  ['cde ', ['create', 'list', 'template', 'ssh', 'completion'], ['completion-words']],
  ['cde template ', ['push', 'list', 'validate'], ['create']],
  ['cde sta', ['start'], ['stop']],
  ['cde start ', ['web', 'bob/api'], []],
  ['cde start web b', ['bob/api'], ['web']],
  ['cde create x --template ', ['local'], []],
  ['cde create x --t', ['--template'], ['--param']],
  ['cde list --status fa', ['failed'], ['running']],
  ['cde user update ada --role ', ['owner', 'auditor'], []],
  ['cde completion ', ['bash', 'zsh', 'fish'], []],
];

describe.skipIf(!has('bash'))('bash', () => {
  test.each(cases)('%j', async (typed, wanted, unwanted) => {
    const words = typed.split(' ');
    const script = `source ./cde.bash; COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}; _cde; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const found = await offered('bash', ['--norc', '-c', script]);
    expect(found).toEqual(expect.arrayContaining(wanted));
    for (const word of unwanted) expect(found).not.toContain(word);
  });
});

describe.skipIf(!has('fish'))('fish', () => {
  test.each(cases)('%j', async (typed, wanted, unwanted) => {
    const found = (
      await offered('fish', ['--no-config', '-c', `source ./cde.fish; complete -C '${typed}'`])
    ).map((line) => line.split('\t')[0]!);
    expect(found).toEqual(expect.arrayContaining(wanted));
    for (const word of unwanted) expect(found).not.toContain(word);
  });
});

describe.skipIf(!has('zsh'))('zsh', () => {
  test('the script is good zsh', async () => {
    await offered('zsh', [
      '-f',
      '-c',
      'autoload -U compinit; compinit -u -d ./dump; source ./cde.zsh; whence -w _cde',
    ]);
  });
});

test('names come quickly or not at all', async () => {
  const ran = await home.run(['completion-words', 'workspaces'], { env: { CDE_URL: 'http://127.0.0.1:9' } });
  expect(ran).toEqual({ code: 0, stdout: '', stderr: '' });
});
