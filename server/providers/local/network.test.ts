import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { networkInterfaces } from 'node:os';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { until } from '../../../tests/kit/until.ts';
import { gatewayFolder, openGateway } from '../gateway/gateway.ts';
import type { Started, StepResult } from '../provider.ts';
import { choosePool, detectNetwork, findResolvers, rulesFor } from './network.ts';
import { signal } from './processes.ts';
import { drive, isRoot, launchOf, levelsHere, makeScene, makeSpec } from './testing.ts';

const run = promisify(execFile);

const route = (device: string, network: string, mask: string) =>
  `${device}\t${network}\t00000000\t0001\t0\t0\t0\t${mask}\t0\t0\t0`;
const head = 'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT';

describe('the addresses of workspaces', () => {
  test('are in a network to which the machine has no route', () => {
    const standard = route('eth0', '00000000', '00000000');
    expect(choosePool([head, standard].join('\n'))).toBe('10.213');
    expect(choosePool([head, standard, route('wg0', '0000000A', '000000FF')].join('\n'))).toBe('172.29');
    expect(choosePool([head, standard, route('br0', '0104D50A', '00FFFFFF')].join('\n'))).toBe('10.87');
    // Routes of other workspaces do not count.
    expect(choosePool([head, route('cdew7', '0104D50A', 'FCFFFFFF')].join('\n'))).toBe('10.213');
    const all = ['0000000A', '000010AC', '00005C64'].map((net) => route('tun0', net, '0000F0FF'));
    all[0] = route('tun0', '0000000A', '000000FF');
    expect(choosePool([head, ...all].join('\n'))).toBe(null);
  });
});

describe('names are resolved', () => {
  test('by the name servers of the machine, or those behind its stub', () => {
    expect(findResolvers('nameserver 192.0.2.1\nsearch example.com\n', null)).toEqual({
      servers: ['192.0.2.1'],
      loopback: null,
      others: ['search example.com'],
    });
    expect(findResolvers('nameserver 127.0.0.53\n', 'nameserver 192.0.2.1\n')).toMatchObject({
      servers: ['192.0.2.1'],
      loopback: null,
    });
  });

  test("by the machine's own stub, through a rule, if there is no other", () => {
    const found = findResolvers('nameserver 127.0.0.1\n', null);
    expect(found).toMatchObject({ servers: [], loopback: '127.0.0.1' });
    expect(rulesFor(found)).toContain('dnat ip to 127.0.0.1');
    expect(rulesFor({ ...found, loopback: null })).not.toContain('dnat');
  });
});

test('without the required programs the network is shared, and the status says so', async () => {
  const found = await detectNetwork('auto', true, () => null);
  expect(found).toMatchObject({
    kind: 'shared',
    available: true,
    sentence: expect.stringMatching(/shared with the machine/),
    refused: [expect.stringMatching(/^veth: /), expect.stringMatching(/^pasta: /)],
  });
  expect(await detectNetwork('pasta', true, () => null)).toMatchObject({ kind: 'pasta', available: false });
  expect(await detectNetwork('auto', false)).toMatchObject({ kind: 'shared', refused: [] });
});

test.runIf(isRoot)('root does not start pasta, which would outlive its parent', async () => {
  expect(await detectNetwork('pasta', true)).toMatchObject({
    available: false,
    refused: ['pasta: is for servers that do not run as root'],
  });
});

let scene: ReturnType<typeof makeScene>;
beforeEach(() => {
  scene = makeScene();
});
afterEach(() => scene.close());

const inside = (script: string, workspaceId?: string) => scene.inside(script, workspaceId);
const connects = (host: string, port: number, workspaceId = 'w1') =>
  inside(`timeout 3 bash -c 'exec 3<>/dev/tcp/${host}/${port}' && echo yes`, workspaceId).then(({ out }) =>
    out.includes('yes'),
  );
const listens =
  "node=$(readlink -f /proc/$PPID/exe); $node -e \"require('net').createServer((s) => s.on('error', () => {}).end('mine')).listen(8080, '0.0.0.0')\" >/dev/null 2>&1 & " +
  "until bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080' 2>/dev/null; do sleep 0.05; done; echo listening";
const links = async () => (await run('ip', ['-br', 'link'])).stdout.match(/cdew\d+/g) ?? [];
const addressOf = async (workspaceId: string) =>
  /inet ([\d.]+)/.exec((await inside('ip -4 address show eth0', workspaceId)).out)![1]!;

const enclosing = (await levelsHere()).some((level) => level !== 'none');
const addressesHere = () =>
  Object.entries(networkInterfaces()).flatMap(([name, all]) =>
    name.startsWith('cdew') ? [] : (all ?? []).filter(({ family }) => family === 'IPv4'),
  );

for (const kind of ['veth', 'pasta'] as const) {
  const works = enclosing && (await detectNetwork(kind, true)).available;

  describe.runIf(works)(kind, () => {
    let machine: Server;
    let port: number;
    beforeEach(async () => {
      machine = createServer((_, response) => response.end('of the machine')).listen(0, '0.0.0.0');
      await until(() => machine.listening, 'a program of the machine');
      ({ port } = machine.address() as AddressInfo);
    });
    afterEach(() => void machine.close());

    async function begin(workspaceId: string): Promise<Extract<StepResult<Started>, { kind: 'done' }>> {
      const provider = scene.provider('obedient', { network: kind });
      const move = await drive((state) =>
        provider.start(makeSpec(workspaceId), launchOf('b1'), state, scene.context),
      );
      if (move.kind !== 'done') throw new Error(JSON.stringify(move));
      return move;
    }

    test('a workspace cannot reach the machine, other workspaces or a metadata service', async () => {
      const [move] = await Promise.all([begin('w1'), begin('w2')]);
      expect(move.isolation).toMatch(new RegExp(kind === 'veth' ? 'veth pair' : 'pasta'));
      // Both use the same port in separate networks.
      for (const workspaceId of ['w1', 'w2'])
        expect((await inside(listens, workspaceId)).out).toContain('listening');
      expect(await connects('127.0.0.1', port)).toBe(false);
      expect(await connects('::1', port)).toBe(false);
      for (const { address } of addressesHere()) expect(await connects(address, port), address).toBe(false);
      if (kind === 'veth') expect(await connects(await addressOf('w2'), 8080)).toBe(false);
      expect((await inside('ip route get 169.254.169.254; ip -4 route show default')).out).toMatch(/default/);
      expect(await connects('169.254.169.254', 80)).toBe(false);
      expect((await inside('grep -c ^nameserver /etc/resolv.conf')).out).toMatch(/^[1-9]/);
    });

    test('the machine can reach the workspace, for direct paths', async () => {
      if (kind !== 'veth') return;
      await begin('w1');
      expect((await inside(listens)).out).toContain('listening');
      const socket = connect(8080, await addressOf('w1'));
      const said = await new Promise((resolve, reject) => {
        socket.once('data', (data) => resolve(String(data)));
        socket.once('error', reject);
      });
      expect(said).toBe('mine');
    });

    test('the gateway serves only the routes of agents', async () => {
      const app = createServer((request, response) => response.end(`served ${request.url}`));
      const gateway = await openGateway({
        dataDir: scene.dataDir,
        server: app,
        own: () => '127.0.0.1:7080',
        reach: async () => [`http://127.0.0.1:${port}`, 'http://198.51.100.1:9000'],
      });
      try {
        await begin('w1');
        const ask = (place: string, path: string) =>
          inside(
            `node=$(readlink -f /proc/$PPID/exe); $node -e "
              const s = require('net').connect(require('fs').readdirSync('/run/cde').map((n) => '/run/cde/' + n)[0]);
              s.write('CONNECT ${place} HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n');
              s.once('data', (d) => { const status = String(d).split(' ')[1]; console.log(status);
                if (status !== '200') process.exit(); s.on('data', (d) => console.log(String(d)));
                s.end('GET ${path} HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n'); })"`,
          ).then(({ out }) => out);
        expect(await ask('127.0.0.1:7080', '/api/v1/agent/register')).toMatch(
          /^200\n(.|\s)*served \/api\/v1\/agent/,
        );
        expect(await ask('server.cde.internal:80', '/api/v1/agent/stats')).toMatch(/^200\n(.|\s)*served/);
        expect(await ask('127.0.0.1:7080', '/api/v1/users')).toMatch(/^200\nHTTP\/1.1 404/);
        // A replica or satellite on this machine, as named by the server. Other addresses are not the gateway's.
        expect(await ask(`127.0.0.1:${port}`, '/')).toMatch(/^200\n(.|\s)*of the machine/);
        expect(await ask('198.51.100.1:9000', '/')).toMatch(/^421/);
        expect(await ask('127.0.0.1:22', '/')).toMatch(/^421/);
      } finally {
        await gateway.close();
      }
      expect(existsSync(gatewayFolder(scene.dataDir))).toBe(true);
    });

    test('nothing is left after a stop or a kill -9 of the supervisor', async () => {
      const before = new Set(await links());
      const provider = scene.provider('obedient', { network: kind });
      const start = (build: string) =>
        drive((state) => provider.start(makeSpec('w1'), launchOf(build), state, scene.context));
      const mine = async () => (await links()).filter((name) => !before.has(name));
      const address = (move: StepResult) => {
        expect(move.kind).toBe('done');
        return addressOf('w1');
      };
      const move = await start('b1');
      const interfaceOf = async () => {
        if (kind !== 'veth') return undefined;
        const own = await address(move);
        const { stdout } = await run('ip', ['-o', '-4', 'route', 'get', own]);
        return /dev (cdew\d+)/.exec(stdout)![1]!;
      };
      const first = await interfaceOf();
      if (first) expect(await mine()).toContain(first);
      await drive((state) => provider.stop('w1', state, scene.context), move.state);
      if (first) await until(async () => !(await mine()).includes(first), 'the interface gone');
      scene.forgetScripts('w1');
      await start('b2');
      const second = await interfaceOf();
      for (const pid of scene.supervisors()) signal(pid, 'SIGKILL');
      await until(() => scene.agents().length === 0, 'the agent gone');
      if (second) await until(async () => !(await mine()).includes(second), 'the interface gone');
    });
  });
}
