import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { compileCache } from '../tests/kit/compile-cache.ts';
import { until } from '../tests/kit/until.ts';

test('a machine in no cluster keeps its profile, and reports into a file', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cde-noded-'));
  const path = (sysctl: string) => join(folder, 'sys', sysctl.replaceAll('.', '/'));
  const put = (sysctl: string, text: string) => {
    mkdirSync(dirname(path(sysctl)), { recursive: true });
    writeFileSync(path(sysctl), `${text}\n`);
  };
  const value = (sysctl: string) => readFileSync(path(sysctl), 'utf8').trim();
  // What noded asks of every kernel.
  put('kernel.random.boot_id', '5e2b7a3c-0000-4000-8000-000000000001');
  put('fs.aio-max-nr', '65536');
  put('vm.swappiness', '60');
  const profiles = join(folder, 'profiles.yaml');
  const sysctls = { 'fs.aio-max-nr': { atLeast: 1048576 }, 'vm.swappiness': 1, 'vm.max_map_count': 262144 };
  writeFileSync(profiles, JSON.stringify({ profiles: { template: { sysctls } } }));
  const report = join(folder, 'run/kernel.json');
  const child = spawn(process.execPath, [join(import.meta.dirname, 'main.ts'), 'machine'], {
    env: {
      PATH: process.env.PATH,
      ...compileCache,
      CDE_NODED_PROFILES: profiles,
      CDE_NODED_SYSCTLS: join(folder, 'sys'),
      CDE_NODED_DATA_DIR: join(folder, 'data'),
      CDE_NODED_REPORT: report,
    },
  });
  let log = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk) => {
      log += chunk;
    });
  const ended = once(child, 'close');
  onTestFinished(async () => {
    child.kill('SIGKILL');
    await ended;
    rmSync(folder, { recursive: true });
  });
  const isOver = () => child.exitCode !== null;
  await until(() => existsSync(report) || isOver(), `the report; ${log}`);
  expect(log).not.toContain('noded:');
  expect(JSON.parse(readFileSync(report, 'utf8'))).toMatchObject({
    profiles: { template: { state: 'not-ready', reason: 'sysctl-missing' } },
  });
  put('vm.max_map_count', '65530');
  await until(() => value('vm.max_map_count') === '262144' || isOver(), 'the profile');
  expect([value('fs.aio-max-nr'), value('vm.swappiness')]).toEqual(['1048576', '1']);
  put('vm.swappiness', '30');
  await until(() => value('vm.swappiness') === '1', 'the repair');
  await until(
    () => JSON.parse(readFileSync(report, 'utf8')).profiles.template.state === 'ready',
    'the report of a profile that is ready',
  );
  child.kill('SIGTERM');
  expect(await ended).toEqual([0, null]);
  expect(value('vm.swappiness')).toBe('1');
});
