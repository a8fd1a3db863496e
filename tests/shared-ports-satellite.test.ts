import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { describe, expect, test } from 'vitest';
import { until } from './kit/until.ts';
import { portsByName } from './shared-ports/by-name.ts';
import { usePorts } from './shared-ports/fixture.ts';

describe('ports by name, at a satellite', () => {
  const ports = usePorts('satellite');
  const { ask, cookies, dashboard, enter, machine, port, portHost, satelliteToken, send, serverSite, share } =
    ports;
  portsByName(ports);

  test('a satellite gets tickets only for ports that its visitors have access to', async () => {
    const visit = async (headers: Record<string, string>) => {
      const reply = await fetch(`${dashboard()}/api/v1/satellite/port-visits`, {
        method: 'POST',
        headers: { authorization: `Bearer ${satelliteToken()}`, 'content-type': 'application/json' },
        body: JSON.stringify({
          head: { method: 'GET', url: '/', headers },
          clientKey: makeClientKey().publicKey,
        }),
      });
      return (await reply.json()) as any;
    };
    const own = `${port()}--hello--owner.localhost`;
    await share('owner');
    const there = await enter(cookies.owner, { at: serverSite() });
    const candidates = [cookies.owner, there.cookie, there.cookie.replace('cde_port', 'cde_session')];
    for (const headers of [
      { host: portHost() },
      ...candidates.map((cookie) => ({ host: portHost(), cookie })),
      // What is valid for the server's own names is not valid here.
      { host: own, cookie: there.cookie },
      { host: 'localhost', cookie: cookies.owner },
      { host: '' },
    ]) {
      const got = await visit(headers);
      expect(got, JSON.stringify(headers)).toMatchObject({ kind: 'refuse' });
      expect(got).not.toHaveProperty('ticket');
    }
    const { cookie } = await enter(cookies.owner);
    const { ticket } = await visit({ host: portHost(), cookie });
    const claims = JSON.parse(Buffer.from(ticket.ticket.split('.')[1], 'base64url').toString());
    expect(claims).toMatchObject({
      kind: 'limited',
      only: [`tcp:localhost:${port()}`],
      satellites: ['east'],
      paths: ['relay'],
    });
    expect(await visit({ host: own, cookie })).toMatchObject({ kind: 'refuse' });
  });

  test('turning ports off at a satellite ends open connections', async () => {
    await share('public');
    await until(
      () => send('/', { host: portHost() }),
      ({ status }) => status === 200,
    );
    const events = ask('/events', { host: portHost() });
    const [reply] = (await once(events, 'response')) as [IncomingMessage];
    reply.on('error', () => {});
    reply.resume();
    const closed = new Promise((resolve) => reply.once('close', resolve));
    expect(await machine().cde('satellite', 'web', 'east', '--off')).toMatchObject({ code: 0 });
    await closed;
    // Its names are no longer port names.
    await until(
      () => send('/', { host: portHost() }),
      ({ text }) => !text.includes('port-') && !text.includes('sign-in'),
      20_000,
    );
    const host = portHost(port(), serverSite());
    expect(await send('/', { site: serverSite(), host })).toMatchObject({ status: 200 });
  }, 40_000);
});
