import type { Incident } from '@cde/api/diagnosis.ts';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cloneDatabase } from './kit/database.ts';
import { type Machine, makeMachine } from './kit/machine.ts';
import { until } from './kit/until.ts';

/** Recording, explaining and reading by the real programs: server, agent and `cde`. */
let machine: Machine;
beforeAll(async () => {
  machine = await makeMachine({ DATABASE_URL: await cloneDatabase() });
  await machine.start();
});
afterAll(() => machine?.remove());

const incidents = async (): Promise<Incident[]> => {
  const ran = await machine.cde('why', 'hello', '--json');
  expect(ran.code, ran.stderr).toBe(0);
  return JSON.parse(ran.stdout).incidents;
};

test('why: nothing went wrong', async () => {
  expect(await machine.cde('why')).toMatchObject({
    code: 0,
    stdout: '',
    stderr: expect.stringMatching(/^Nothing went wrong in your sessions since /),
  });
});

test('why: a restart is named, with who asked for it', async () => {
  const ping = machine.begin(['ping', 'hello', '--interval', '1', '--path', 'relay']);
  // By then the session is recorded.
  await ping.says(/^4 {2}/m);
  expect(await machine.cde('restart', 'hello')).toMatchObject({ code: 0 });
  const [incident] = await until(incidents, (found) => found.length > 0);
  expect(incident).toMatchObject({
    workspace: 'owner/hello',
    kind: 'ended',
    cause: 'workspace-stopped',
    segment: 'workspace',
    summary: 'The session ended: the workspace was restarted by owner.',
  });
  ping.process.kill('SIGINT');
  await ping.ended;
  const { stdout } = await machine.cde('why');
  expect(stdout).toMatch(
    /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d {2}owner\/hello {2}The session ended: the workspace was restarted by owner\.$/m,
  );
});

test('why: nonsense is refused', async () => {
  expect(await machine.cde('why', '--since', 'lately')).toMatchObject({ code: 2 });
  expect(await machine.cde('why', 'nowhere')).toMatchObject({
    stderr: expect.stringContaining('[workspace-not-found]'),
  });
});
