import { execFile, execFileSync } from 'node:child_process';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { listClusters } from '@cde/api/clusters.ts';
import { listUsers } from '@cde/api/identity.ts';
import { listNodes } from '@cde/api/nodes.ts';
import { listTemplates } from '@cde/api/templates.ts';
import { listWorkspaces } from '@cde/api/workspaces.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  cdePath,
  type FakeServer,
  makeFakeServer,
  makeTestHome,
  Refusal,
  type TestHome,
} from '../testing/cli.ts';
import { cluster, node, template, user, workspace } from '../testing/objects.ts';

/** Names from a hostile server: if a shell evaluated one, it would create a file or move the cursor. */
const hostileNames = [
  'x$(touch pwned)',
  '$(touch$IFS.pwned)',
  '`touch pwned`',
  '; touch pwned;',
  'b\ntouch pwned',
  'c\u001b]0;title\u0007',
  'd\u202egnp.exe',
  '-rf',
  '*',
];

let home: TestHome;
let server: FakeServer;
const hostilePaths = [
  'web:src/plain.ts',
  'web:src/$(touch pwned)',
  'web:src/`touch pwned`',
  'web:src/a b;touch pwned',
  "web:src/'q'",
  'web:src/*',
  'web:src/\\x',
];
beforeAll(async () => {
  home = await makeTestHome();
  server = await makeFakeServer();
  server.on(listTemplates, () => ({ items: [template()], next: null }));
  server.on(listUsers, () => ({ items: [user({ username: 'ada' }), user({ username: 'bob' })], next: null }));
  server.on(listClusters, () => ({ items: [cluster()] }));
  server.on(listNodes, () => ({
    items: [
      node(),
      node({ name: 'twin' }),
      node({ name: 'twin', cluster: null, provider: 'local' }),
      ...hostileNames.map((name) => node({ name })),
    ],
    next: null,
    unseen: [],
  }));
  server.on(listWorkspaces, ({ query }) => {
    // Not validated, because this server violates the API's schemas.
    throw new Refusal(200, {
      items: [
        workspace(),
        ...(query.owner === 'me' ? [] : [workspace({ owner: 'bob', name: 'api' })]),
        ...hostileNames.map((name) => workspace({ name })),
      ],
      next: null,
    });
  });
  // Stands in for a `cde` whose workspace has files of these names.
  await mkdir(join(home.path, 'hostile'));
  await writeFile(join(home.path, 'paths.txt'), hostilePaths.map((path) => `${path}\n`).join(''));
  await writeFile(join(home.path, 'hostile/cde'), `#!/bin/sh\ncat '${join(home.path, 'paths.txt')}'\n`, {
    mode: 0o755,
  });
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
  // Sessions are only possible with one's own workspaces; an option before the command changes nothing.
  ['cde ssh ', ['web'], ['bob/api']],
  ['cde port-forward ', ['web'], ['bob/api']],
  ['cde cp ', ['web:'], ['web', 'bob/api:']],
  ['cde rsync w', ['web:'], ['bob/api:']],
  ['cde user show a', ['ada'], ['bob']],
  ['cde list --owner ', ['ada', 'bob'], ['web']],
  ['cde node show ', ['pool.a-1', 'eu/twin', 'local/twin'], ['twin', 'ada']],
  ['cde node list --cluster ', ['eu'], ['ada']],
  ['cde --server work start ', ['web', 'bob/api'], ['ada']],
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

describe.skipIf(!has('bash'))('names from a server or a workspace, in bash', () => {
  const complete = (script: string, path = home.path) =>
    offered('bash', ['--norc', '-c', `PATH=${path}:$PATH; source ${home.path}/cde.bash; ${script}`]);

  test('run nothing, and invalid names are not offered', async () => {
    const found = await complete(
      `COMP_WORDS=(cde start ''); COMP_CWORD=2; _cde; printf '%s\\n' "\${COMPREPLY[@]}"`,
    );
    expect(found).toEqual(['web', 'bob/api']);
    expect(await readdir(home.path)).not.toContain('pwned');
  });

  test('paths are inserted quoted', async () => {
    // With and without COMP_LINE, as bash splits it; then the shell evaluates the inserted word.
    for (const line of ["COMP_LINE='cde cp web:src/'; COMP_POINT=15;", 'unset COMP_LINE;']) {
      const found = await complete(
        `${line} COMP_WORDS=(cde cp web : src/); COMP_CWORD=4; _cde
         for reply in "\${COMPREPLY[@]}"; do eval "set -- web:$reply"; printf '%s\\n' "$#$1"; done`,
        join(home.path, 'hostile'),
      );
      expect(found).toEqual(hostilePaths.map((path) => `1${path}`));
    }
    expect(await readdir(home.path)).not.toContain('pwned');
  });

  test('the same for local files that were copied from there', async () => {
    await mkdir(join(home.path, 'files'));
    await writeFile(join(home.path, 'files/$(touch pwned)'), '');
    const found = await complete(
      `cd files; COMP_WORDS=(cde cp '$'); COMP_CWORD=2; _cde; printf '%s\\n' "\${COMPREPLY[@]}"`,
    );
    expect(found).toEqual(['\\$\\(touch\\ pwned\\)']);
  });
});

describe.skipIf(!has('fish'))('fish', () => {
  test('offers remote paths unchanged, without expansion', async () => {
    const found = await offered('fish', [
      '--no-config',
      '-c',
      `set -p PATH ${join(home.path, 'hostile')}; source ./cde.fish; complete -C 'cde cp web:src/'`,
    ]);
    for (const path of hostilePaths.slice(0, 3))
      expect(found.join('\n')).toContain(path.slice('web:src/'.length));
    expect(await readdir(home.path)).not.toContain('pwned');
  });

  test.each(cases)('%j', async (typed, wanted, unwanted) => {
    const found = (
      await offered('fish', ['--no-config', '-c', `source ./cde.fish; complete -C '${typed}'`])
    ).map((line) => line.split('\t')[0]!);
    expect(found).toEqual(expect.arrayContaining(wanted));
    for (const word of unwanted) expect(found).not.toContain(word);
  });
});

describe.skipIf(!has('zsh'))('zsh', () => {
  const zsh = (script: string) =>
    offered('zsh', ['-f', '-c', `autoload -U compinit; compinit -u -d ./dump; source ./cde.zsh; ${script}`]);

  test('passes names and paths to compadd unchanged', async () => {
    const stub = 'compadd() { print -rl -- "$' + '{(@P)@[-1]}" }; _files() { };';
    expect(await zsh(`${stub} _cde_names workspaces`)).toEqual(['web', 'bob/api']);
    expect(await zsh(`${stub} PREFIX=; _cde_operands`)).toEqual(['web']);
    expect(
      await zsh(`path=(${join(home.path, 'hostile')} $path); ${stub} PREFIX='web\\:src/'; _cde_operands`),
    ).toEqual(hostilePaths);
    expect(await readdir(home.path)).not.toContain('pwned');
  });

  test('_arguments does not insert words before ours', async () => {
    const script = await readFile(join(home.path, 'cde.zsh'), 'utf8');
    expect(script.match(/: _cde_(names [a-z]+|operands)'/g)!.length).toBeGreaterThan(10);
    expect(script).not.toMatch(/:_cde_/);
  });

  // In a terminal (zpty) with the real completion system; only compadd is wrapped to record the matches.
  const inner = `
PROMPT= ; unsetopt beep
autoload -U compinit; compinit -u -d ./dump
source ./cde.zsh
zstyle ':completion:*' insert-tab false
bindkey '^I' complete-word
compadd() {
  builtin compadd "$@"; local result=$?
  [[ " \${@[1,(i)(-|--)]} " == *' -'[OAD]' '* ]] && return $result
  local -a matches suffix
  builtin compadd -A matches "$@"
  zparseopts -E S:=suffix
  local match
  for match in $matches; do print -r -- "$match\${suffix[2]}" >> ./matches; done
  return $result
}
comppostfuncs=(exit)
print READY
`;
  const outer = `
zmodload zsh/zpty
: > ./matches
zpty terminal zsh -f -i
zpty -w terminal 'source ./inner.zsh'
zpty -r terminal output '*READY*'
zpty -w -n terminal "$1"$'\\t'
while zpty -r terminal output; do :; done
cat ./matches
`;

  test.each(cases)('%j', async (typed, wanted, unwanted) => {
    await writeFile(join(home.path, 'inner.zsh'), inner);
    await writeFile(join(home.path, 'outer.zsh'), outer);
    const found = await offered('zsh', ['-f', './outer.zsh', typed]);
    expect(found).toEqual(expect.arrayContaining(wanted));
    for (const word of unwanted) expect(found).not.toContain(word);
  });
});

test('names come quickly or not at all', async () => {
  const ran = await home.run(['completion-words', 'workspaces'], { env: { CDE_URL: 'http://127.0.0.1:9' } });
  expect(ran).toEqual({ code: 0, stdout: '', stderr: '' });
});
