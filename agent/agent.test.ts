import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, readlinkSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { postAgentStats, registerAgent } from '@cde/api/agent.ts';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { freePort } from '../tests/kit/free-port.ts';
import { type Agent, makeAgent } from './agent.ts';
import { bundleAgent } from './bundle.ts';
import { alive, until } from './ssh/fixture.ts';
import { type AgentProcess, makeTestServer, startAgentProcess, type TestServer, token } from './testing.ts';

let home: string;
let servers: TestServer[];
let agents: AgentProcess[];
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'cde-agent-test-'));
  servers = [];
  agents = [];
});
afterEach(async () => {
  for (const agent of agents) agent.kill('SIGKILL');
  await Promise.all(agents.map(({ ended }) => ended));
  await Promise.all(servers.map((server) => server.close()));
  await rm(home, { recursive: true, force: true });
});

async function serve(...input: Parameters<typeof makeTestServer>): Promise<TestServer> {
  const server = await makeTestServer({ home, ...input[0] });
  servers.push(server);
  return server;
}
function start(url: string, changes: Partial<Parameters<typeof startAgentProcess>[0]> = {}): AgentProcess {
  const agent = startAgentProcess({ url, home, ...changes });
  agents.push(agent);
  return agent;
}
test('an agent that is stopped while it starts leaves no socket behind', async () => {
  const server = await serve({ workspaceId: randomUUID() });
  vi.stubEnv('HOME', home);
  const printed: string[] = [];
  const agent: Agent = makeAgent({
    serverUrl: server.url,
    token,
    version: '0.1.0',
    print(text) {
      printed.push(text);
      if (text.startsWith('registered')) void agent.stop();
    },
    onRejected() {},
  });
  await agent.start();
  await agent.stop();
  vi.unstubAllEnvs();
  expect(printed).toEqual(['registered as dev/hello']);
  expect(existsSync(join(tmpdir(), `cde-${server.manifest.workspaceId}`))).toBe(false);
});

describe('the agent as a process', () => {
  test('registers with keys, the host key stable over restarts, and reports', async () => {
    const server = await serve();
    const first = start(server.url);
    await until(() => server.stats.length > 0 && server.startup.length > 0, 'reports');
    first.kill('SIGTERM');
    expect(await first.ended).toBe(0);
    start(server.url);
    await until(() => server.registered.length === 2, 'the second registration');
    const [one, two] = server.registered;
    expect(one).toMatchObject({ version: '0.1.0', sshHostKey: expect.stringMatching(/^ssh-ed25519 AAAA/) });
    expect(one!.tlsPublicKey).toMatch(/^[A-Za-z0-9_-]{43}$/);
    expect(two!.sshHostKey).toBe(one!.sshHostKey);
    expect(two!.tlsPublicKey).not.toBe(one!.tlsPublicKey);
    expect(server.startup).toEqual([{ state: 'none' }]);
    expect(server.faults).toEqual([]);
  });

  test('retries a server that is unreachable, overloaded or failing, and tries each replica', async () => {
    const port = await freePort();
    const agent = start(`http://127.0.0.1:1, http://127.0.0.1:${port}/`);
    await until(() => agent.said().includes('cannot register'), 'it says that it cannot');
    expect(agent.said()).toMatch(/No answer from http:\/\/127.0.0.1:\d+.*ECONNREFUSED.*retrying in/);
    const server = await serve({ port });
    server.answer(registerAgent.path, 503, 429, 500);
    await until(() => server.registered.length === 1, 'the registration');
    await until(() => server.stats.length === 1, 'a report');
  });

  test.each([401, 403, 410])('ends with a clear line when the server answers %i', async (status) => {
    const server = await serve();
    server.answer(registerAgent.path, status);
    const agent = start(server.url);
    expect(await agent.ended).toBe(4);
    expect(agent.said()).toBe(
      `cde agent: the server rejects this agent (${status} planned-${status}): Planned ${status}.\n`,
    );
  });

  test('ends when another build has taken its place meanwhile', async () => {
    const server = await serve({ statsEveryMs: 150 });
    const agent = start(server.url);
    await until(() => server.stats.length > 0, 'a report');
    server.answer(registerAgent.path, 410);
    server.answer(postAgentStats.path, 410);
    expect(await agent.ended).toBe(4);
  });

  test('registers again before its listen token ends', async () => {
    const server = await serve({ listenTokenExpiresAt: new Date(Date.now() + 2500).toISOString() });
    start(server.url);
    await until(() => server.registered.length >= 2, 'the renewal');
    expect(server.registered[1]).toEqual(server.registered[0]);
    expect(server.startup).toEqual([{ state: 'none' }]);
  });

  test('registers again when the satellites are others', async () => {
    const server = await serve({ statsEveryMs: 150 });
    start(server.url);
    await until(() => server.stats.length > 1, 'reports');
    expect(server.registered).toHaveLength(1);
    server.manifest.satellites = [{ name: 'east', url: 'http://127.0.0.1:9' }];
    await until(() => server.registered.length > 1, 'the registration');
    const reports = server.stats.length;
    await until(() => server.stats.length > reports + 1, 'reports');
    expect(server.registered).toHaveLength(2);
  });

  test('says what is missing from its environment', async () => {
    const agent = start('');
    expect(await agent.ended).toBe(2);
    expect(agent.said()).toMatch(/CDE_SERVER_URL is not set/);
  });

  test.runIf(process.platform === 'linux')('takes its token from stdin, and nobody finds it', async () => {
    const server = await serve({});
    const secret = 'cde_agent_for_tests';
    const agent = start(server.url, { environment: { CDE_AGENT_TOKEN: 'stdin' }, stdin: `${secret}\n` });
    await until(() => server.registered.length > 0, 'the registration');
    expect(server.faults).toEqual([]);
    expect(readFileSync(`/proc/${agent.pid}/environ`, 'utf8')).not.toContain(secret);
    expect(readlinkSync(`/proc/${agent.pid}/fd/0`)).toBe('/dev/null');
  });

  test('its token reaches no child process, and SIGTERM leaves nothing behind', async () => {
    const server = await serve({
      startup: {
        script: 'env | sort > env.txt; echo $$ > script.pid; echo up; exec sleep 331',
        timeoutMs: 60_000,
      },
      env: { FROM_MANIFEST: 'yes' },
    });
    const agent = start(server.url);
    const script = await until(
      () => existsSync(join(home, 'script.pid')) && Number(readFileSync(join(home, 'script.pid'), 'utf8')),
      'the script runs',
    );
    const environment = readFileSync(join(home, 'env.txt'), 'utf8');
    expect(environment).toContain('FROM_MANIFEST=yes\n');
    expect(environment).not.toMatch(/CDE_AGENT_TOKEN|CDE_SERVER_URL|cde_agent_for_tests/);
    // It does not wait for the script, which runs for minutes.
    agent.kill('SIGTERM');
    expect(await agent.ended).toBe(0);
    await until(() => !alive(script), 'the script has ended');
    expect(server.lines.map(({ text }) => text)).toContain('up');
    expect(server.startup).toEqual([{ state: 'running' }]);
    expect(server.faults).toEqual([]);
  });
});

test('the bundle runs by itself, in a folder with nothing else', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'cde-bundle-'));
  try {
    const program = await bundleAgent({ into: join(folder, 'dist') });
    const server = await serve({ startup: { script: 'tty; echo done', timeoutMs: 10_000 } });
    start(server.url, { program });
    await until(() => server.startup.length === 2, 'the startup script');
    expect(server.lines.map(({ text }) => text)).toEqual(['not a tty', 'done']);
    expect(server.faults).toEqual([]);
    // What ssh2 would load aborts the process now and then: scripts/install.mjs.
    const { bindingAvailable } = createRequire(import.meta.url)('ssh2/lib/protocol/crypto.js');
    expect(bindingAvailable).toBe(false);
    const natives = (await readdir(join(folder, 'dist'))).filter((name) => name.endsWith('.node'));
    for (const name of natives) createRequire(import.meta.url)(join(folder, 'dist', name));
    expect(natives).toContain('pty.node');
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
