import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ActivityEvent, Lease, WorkspaceActivity } from '@cde/api/activity.ts';
import { CleanupCandidate, CleanupReport, StoredCleanupPolicy } from '@cde/api/cleanup.ts';
import { Health } from '@cde/api/health.ts';
import { AuditRow, NewToken, Token, User } from '@cde/api/identity.ts';
import { Node } from '@cde/api/nodes.ts';
import { WorkspacePort, WorkspacePorts } from '@cde/api/ports.ts';
import { NetworkOverview, Session } from '@cde/api/sessions.ts';
import { Template, TemplateVersion } from '@cde/api/templates.ts';
import { Build, LogLine, Workspace } from '@cde/api/workspaces.ts';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { cloneDatabase } from '../tests/kit/database.ts';
import { commands } from './program/commands.ts';
import { makeProgram } from './program/program.ts';
import { makeTestHome, type RealServer, startServer, type TestHome } from './testing/cli.ts';

// Every command with --json on a real server. Each output must match the API's schema.

let home: TestHome;
let server: RealServer;
beforeAll(async () => {
  home = await makeTestHome();
  server = await startServer(home, { env: { DATABASE_URL: await cloneDatabase() } });
  await writeFile(join(home.path, 'password.txt'), 'correct horse battery');
});
afterAll(async () => {
  await server?.close();
  await home.remove();
});

const starter = fileURLToPath(new URL('../templates/local', import.meta.url));
const anything = z.looseObject({});
const input = 'correct horse battery\n';

/** In order, because later ones build on earlier ones. */
const lines: [string, z.ZodType, { input?: string }?][] = [
  ['create web --no-start -p cpus=1.5', Workspace],
  ['start web', z.array(Build).length(1)],
  ['update web --param memory=3', z.array(Build).length(1)],
  ['restart web hello', z.array(Build).length(2)],
  ['list', z.array(Workspace).length(2)],
  ['show web', Workspace],
  ['logs web', z.array(LogLine).min(1)],
  ['builds web', z.array(Build).min(3)],
  ['share hello 9 --level signed-in', WorkspacePort],
  ['ports hello', WorkspacePorts],
  ['unshare hello 9', anything],
  ['activity hello --limit 2', WorkspaceActivity.extend({ events: z.array(ActivityEvent).min(1) })],
  ['keep-awake hello --for 1h --reason demo', Lease],
  ['keep-awake hello --end', z.object({ ended: z.array(Lease).length(1) })],
  ['schedule hello --stop-after 4h --start-on-connect on', WorkspaceActivity],
  ['node list', z.array(Node).min(1)],
  ['network --by user', NetworkOverview],
  ['network sessions --active', z.array(Session)],
  ['cleanup --dry-run', z.array(CleanupCandidate)],
  ['cleanup policy --set brake-percent=30', StoredCleanupPolicy],
  ['cleanup report', CleanupReport],
  ['cleanup release --yes', z.object({ released: z.literal(0) })],
  ['stop web', z.array(Build).length(1)],
  ['update web', z.array(Build).length(1)],
  ['open hello', z.object({ url: z.url() })],
  [
    'server list',
    z.array(
      z.object({ name: z.literal('local'), url: z.url(), username: z.string(), current: z.literal(true) }),
    ),
  ],
  ['rename web shop', Workspace],
  ['rename shop web', Workspace],
  ['delete web --yes --discard-home', z.array(Build).length(1)],
  [`template push ${starter} --message again`, Template],
  [`template validate ${starter}`, z.object({ valid: z.literal(true), faults: z.array(anything).length(0) })],
  ['template list', z.array(Template).length(1)],
  ['template show local', Template],
  ['template versions local', z.array(TemplateVersion).min(1)],
  ['template activate local 1', Template],
  ['netcheck', z.looseObject({ satellites: z.array(anything).length(1) })],
  ['whoami', User],
  ['token create --name ci --scope read --days 2', NewToken],
  ['token list', z.array(Token).min(2)],
  ['user create bob --name Bob --role auditor --password', User, { input }],
  ['user list --search bob', z.array(User).length(1)],
  ['user show bob', User],
  ['user update bob --suspend', User],
  ['user set-password bob', anything, { input }],
  ['user delete bob --yes', anything],
  ['audit --since 1h --limit 5', z.array(AuditRow).length(5)],
  ['config-ssh', anything],
  ['completion bash', anything],
  ['version', anything],
];

test.each(lines)('cde %s --json', async (line, schema, more) => {
  const reply = await home.json(line.split(' '), more);
  schema.parse(reply);
});

test('cancel, revoke, delete a template; a failure is an object on stderr', async () => {
  const tokens = await home.json(['token', 'list']);
  const ci = tokens.find(({ name }: { name: string }) => name === 'ci');
  expect(await home.json(['token', 'revoke', ci.id])).toMatchObject({ revoked: true });
  for (const [words, code, exitCode] of [
    [['cancel', 'hello'], 'build-ended', 5],
    [['template', 'delete', 'local', '--yes'], 'template-in-use', 5],
    [['show', 'nope'], 'workspace-not-found', 3],
    [['create', 'Not A Name', '--no-start'], 'bad-request', 2],
    [['create', 'web', '-p', 'cpus=1000'], 'parameters-invalid', 2],
    [['create', 'hello'], 'workspace-name-taken', 5],
    [['delete', 'hello'], 'usage', 2],
    [['share', 'hello', 'eighty'], 'usage', 2],
  ] as [string[], string, number][]) {
    const ran = await home.run([...words, '--json']);
    expect(ran.code, words.join(' ')).toBe(exitCode);
    expect(JSON.parse(ran.stderr)).toMatchObject({ code, exitCode });
    expect(ran.stdout === '' || ran.stdout === '[]\n').toBe(true);
  }
});

test('a member learns what they are not allowed to do', async () => {
  await home.json(['user', 'create', 'carl', '--password'], { input });
  const ran = await home.run(['login', server.url, '--token'], { input: 'cde_wrong\n' });
  expect(ran).toMatchObject({ code: 4, stderr: expect.stringContaining('[token-invalid]') });
  // The previous login is still valid.
  expect((await home.json(['whoami'])).role).toBe('owner');
});

test('faults of a template are listed by file, line and column', async () => {
  const folder = join(home.path, 'broken');
  await mkdir(folder);
  await writeFile(join(folder, 'template.yaml'), 'name: broken\nprovider: local\nnonsense: 1\n');
  const validated = await home.run(['template', 'validate', folder]);
  expect(validated.code).toBe(1);
  expect(validated.stdout).toContain(`${join(folder, 'template.yaml')}:3:1: `);
  const pushed = await home.run(['template', 'push', folder]);
  expect(pushed).toMatchObject({ code: 1, stderr: expect.stringContaining('[template-invalid]') });
  expect(pushed.stderr).toContain(`${join(folder, 'template.yaml')}:3:1: `);
});

test('cde health', async () => {
  const ran = await home.run(['health', '--json']);
  const { findings } = Health.parse(JSON.parse(ran.stdout));
  // A busy machine can have errors.
  expect(ran.code).toBe(findings.some(({ severity }) => severity === 'error') ? 1 : 0);
});

test('piped tables have tabs between columns and full timestamps', async () => {
  const ran = await home.run(['list']);
  const [head, row] = ran.stdout.split('\n').map((line) => line.split('\t')) as [string[], string[]];
  expect(head.slice(0, 4)).toEqual(['NAME', 'STATUS', 'TEMPLATE', 'CHANGED']);
  expect(row.slice(0, 3)).toEqual(['hello', 'running', 'local v1']);
  expect(Date.parse(row[3]!)).not.toBeNaN();
});

test('help of a noun says how to get help for its commands', async () => {
  for (const noun of ['cleanup', 'template'])
    expect((await home.run([noun, '--help'])).stdout).toContain(`Use \`cde ${noun} COMMAND --help\``);
});

test('the help of every command has examples and --json', async () => {
  const program = makeProgram(() => {});
  for (const { name } of commands.filter((command) => !command.hidden)) {
    let help = '';
    let parent = program;
    for (const word of name.split(' ')) parent = parent.commands.find((one) => one.name() === word)!;
    const writeOut = (text: string) => {
      help += text;
    };
    parent.configureOutput({ writeOut }).outputHelp();
    expect(help, name).toContain('Examples:');
    expect(help, name).toContain('--json');
  }
  const ran = await home.run(['template', 'list', '--help']);
  expect(ran).toMatchObject({ code: 0, stderr: '', stdout: expect.stringContaining('Examples:') });
});
