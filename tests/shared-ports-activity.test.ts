import type { Signal, WorkspaceActivity } from '@cde/api/activity.ts';
import { expect, test } from 'vitest';
import { until } from './kit/until.ts';
import { usePorts } from './shared-ports/fixture.ts';

const { api, cookies, enter, machine, portHost, send, share } = usePorts('server');

async function seen(signal: Signal): Promise<{ at: number; by: string | null } | null> {
  const { signals } = (await api('GET', '/api/v1/workspaces/hello/activity')).body as WorkspaceActivity;
  const { lastAt, by } = signals.find((each) => each.signal === signal)!;
  return lastAt === null ? null : { at: Date.parse(lastAt), by };
}

/** Waits for a report of the agent about something that happens after this call. */
async function nextReport(): Promise<void> {
  const since = Date.now();
  await until(
    async () => {
      // Repeated, because the server counts two outputs within two seconds as one.
      await machine().cde('ssh', 'hello', '--', 'echo output');
      return seen('command-output');
    },
    (output) => output !== null && output.at >= since,
  );
}

test('a person who opens a shared port is active; a probe, a stranger and a prefetch are not', async () => {
  const host = portHost();
  await share('public');
  for (const userAgent of ['kube-probe/1.33', 'curl/8.14.1'])
    expect(await send('/healthz', { host, headers: { 'user-agent': userAgent } })).toMatchObject({
      status: 200,
    });
  expect(await send('/', { host, page: true })).toMatchObject({ status: 200 });
  await share('signed-in');
  const { cookie } = await enter(cookies.member);
  const headers = { 'sec-purpose': 'prefetch' };
  expect(await send('/', { host, page: true, cookie, headers })).toMatchObject({ status: 200 });
  await nextReport();
  expect(await seen('port-visit')).toBeNull();

  expect(await send('/', { host, page: true, cookie })).toMatchObject({ status: 200 });
  expect(await until(() => seen('port-visit'), 'the report of the visit')).toMatchObject({ by: 'ada' });
});
