import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { createTicket, listWorkspaces } from '@cde/api/workspaces.ts';
import { expect, test } from 'vitest';
import { packCli } from './bundle.ts';
import { makeFakeServer } from './testing/cli.ts';
import { workspace } from './testing/objects.ts';

const run = promisify(execFile);

test('the packed CLI is installed without the repository, and runs', { timeout: 120_000 }, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'cde-pack-'));
  const server = await makeFakeServer();
  server.on(listWorkspaces, () => ({ items: [workspace()], next: null }));
  server.on(createTicket, () => ({
    ticket: 'a.b.c',
    expiresAt: '2100-01-01T00:00:00.000Z',
    workspaceId: '01990000-0000-7000-8000-000000000005',
    workspace: 'ada/web',
    agentKey: 'A'.repeat(43),
    sshHostKey: 'ssh-ed25519 AAAA',
    username: 'ada',
    satellites: [{ name: 'here', url: 'http://127.0.0.1:9' }],
  }));
  try {
    const tarball = await packCli(join(folder, 'packed'));
    const npm = ['install', '--global', '--offline', '--omit=optional', '--no-audit', '--no-fund'];
    await run('npm', [...npm, '--prefix', join(folder, 'prefix'), tarball]);
    const env = {
      PATH: process.env.PATH,
      HOME: folder,
      CDE_URL: server.url,
      CDE_TOKEN: 'cde_x',
      CDE_BACKGROUND: 'off',
    };
    const cde = (...words: string[]) =>
      run(join(folder, 'prefix/bin/cde'), words, { env, cwd: folder }).catch((error) => error);
    expect((await cde('--version')).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
    expect(JSON.parse((await cde('list', '--json')).stdout)).toMatchObject([{ name: 'web' }]);
    const starter = fileURLToPath(new URL('../templates/local', import.meta.url));
    expect((await cde('template', 'validate', starter)).stdout).toContain('local is valid');
    // Far enough to use the tunnel, which is loaded on demand.
    expect(await cde('ssh', '--stdio', 'web.cde')).toMatchObject({
      code: 6,
      stderr: expect.stringContaining('[satellite-unreachable]'),
    });
    expect((await cde('config-ssh', '--dry-run')).stdout).toContain(`/cde-cli/cde.mjs ssh --stdio`);
    expect((await cde('server', 'start')).stderr).toContain('[not-in-package]');
    expect(server.faults).toEqual([]);
  } finally {
    await server.close();
    await rm(folder, { recursive: true, force: true });
  }
});
