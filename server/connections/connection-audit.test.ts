import { v7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeLog } from '../log.ts';
import { makeTestServer, type TestServer } from '../testing.ts';
import { makeConnectionAudit } from './connection-audit.ts';

let server: TestServer;
beforeAll(async () => {
  server = await makeTestServer();
});
afterAll(() => server.close());

test('connections are audited once an hour for each user, address and kind', async () => {
  const auditor = await server.addUser('audra', 'auditor');
  const ada = await server.addUser('ada');
  const audit = makeConnectionAudit({
    database: server.database,
    now: () => server.clock.at,
    log: makeLog('silent'),
  });
  const caller = (ip: string) => ({
    actor: {
      kind: 'user' as const,
      userId: ada.id,
      username: 'ada',
      role: 'member' as const,
      scopes: ['all' as const],
      via: { kind: 'token' as const, id: 'a-token' },
    },
    requestId: 'r',
    ip,
  });
  const web = { workspaceId: v7(), workspace: 'ada/web' };
  const rows = async () =>
    (await server.request(auditor, 'GET', '/api/v1/audit?action=workspace.connect')).body.items;
  for (let n = 0; n < 100; n++) await audit.record(caller('10.0.0.1'), web, 'session');
  expect(await rows()).toMatchObject([
    { actor: 'ada', targetName: 'ada/web', ip: '10.0.0.1', after: { by: 'session', token: 'a-token' } },
  ]);
  await audit.record(caller('10.0.0.1'), web, 'terminal');
  await audit.record(caller('10.0.0.2'), web, 'session');
  expect(await rows()).toHaveLength(3);
  server.clock.at = new Date(server.clock.at.getTime() + 3600_000);
  await audit.record(caller('10.0.0.1'), web, 'session');
  expect(await rows()).toHaveLength(4);
});
