import { once } from 'node:events';
import { createServer } from 'node:http';
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { Relay } from './relay/relay.ts';
import type { StunServer } from './stun/server.ts';

/** Serves `/metrics` (Prometheus) on a separate address. Resolves to a function that stops it. */
export async function serveMetrics(
  address: { host: string; port: number },
  relay: Pick<Relay, 'stats'>,
  stun: Pick<StunServer, 'stats'> | null,
  browsers: { terminals: { readonly open: number }; ports: { readonly open: number } },
): Promise<() => Promise<void>> {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const gauges = {
    sessions: 'Relayed sessions',
    workspaces: 'Workspaces with an agent connected here',
    spares: 'Idle agent sockets',
    waitingDials: 'Clients waiting for an agent',
  } as const;
  for (const [key, help] of Object.entries(gauges) as [keyof typeof gauges, string][])
    new Gauge({
      name: `cde_relay_${key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`,
      help,
      registers,
      collect() {
        this.set(relay.stats()[key]);
      },
    });
  const carried = {
    terminals: 'Open browser terminals',
    ports: 'Open requests and WebSockets for ports',
  } as const;
  for (const [key, help] of Object.entries(carried) as [keyof typeof carried, string][])
    new Gauge({
      name: `cde_browser_${key}`,
      help,
      registers,
      collect() {
        this.set(browsers[key].open);
      },
    });
  new Counter({
    name: 'cde_relay_bytes_total',
    help: 'Bytes relayed, by direction',
    labelNames: ['to'],
    registers,
    collect() {
      const { bytesToAgents, bytesToClients } = relay.stats();
      this.reset();
      this.inc({ to: 'agent' }, bytesToAgents);
      this.inc({ to: 'client' }, bytesToClients);
    },
  });
  if (stun)
    new Counter({
      name: 'cde_stun_requests_total',
      help: 'Datagrams received by the STUN server, by result',
      labelNames: ['result'],
      registers,
      collect() {
        this.reset();
        for (const [result, count] of Object.entries(stun.stats())) this.inc({ result }, count);
      },
    });
  const server = createServer(async (request, response) => {
    if (request.url !== '/metrics') return void response.writeHead(404).end();
    response.setHeader('content-type', registry.contentType);
    response.end(await registry.metrics());
  });
  server.listen(address.port, address.host);
  await once(server, 'listening');
  return async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  };
}
