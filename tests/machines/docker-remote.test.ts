import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer as createTlsServer } from 'node:tls';
import { finish, once as step } from '@cde/server/providers/conformance/steps.ts';
import type { Provider, WorkspaceSpec } from '@cde/server/providers/provider.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run } from '../cluster/machine.ts';
import { freePort } from '../kit/free-port.ts';
import { type Sshd, startSshd } from '../kit/sshd.ts';
import { until } from '../kit/until.ts';
import { testEngine } from './docker-engine.ts';
import { launchOf, makeScene, makeSpec, type Scene } from './docker-scene.ts';

const socket = () => new URL(testEngine().url).pathname;

let folder: string;
let scene: Scene;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cde-remote-'));
  scene = await makeScene();
});
afterAll(async () => {
  await scene.close();
  rmSync(folder, { recursive: true, force: true });
});

const starting = (by: Provider, spec: WorkspaceSpec, launch = launchOf('b1')) =>
  finish((state, context) => by.start(spec, launch, state, context));

/** What a step says while the engine does not answer, and the page of nodes with it. */
async function complaintOf(by: Provider): Promise<string> {
  const spec = makeSpec();
  const result = await step((state, context) => by.start(spec, launchOf('b1'), state, context), {});
  expect(result).toMatchObject({ kind: 'pending', message: expect.any(String) });
  const { unseen } = await by.nodes!();
  const { message } = result as { message: string };
  expect(unseen).toEqual([{ name: 'docker', reason: message }]);
  expect(await by.observe(spec.workspaceId, {})).toEqual({ kind: 'unknown', message });
  await by.close();
  return message;
}

describe('a Docker engine over SSH', () => {
  let sshd: Sshd;
  let knownHosts: string;
  beforeAll(async () => {
    sshd = await startSshd(folder);
    knownHosts = join(folder, 'known_hosts');
    writeFileSync(knownHosts, sshd.hostKey);
  });
  afterAll(() => sshd.close());

  const optionsOf = ({ key = sshd.key, known = knownHosts } = {}) => [
    ...['-F', 'none', '-i', key, '-o', 'IdentitiesOnly=yes', '-o', `UserKnownHostsFile=${known}`],
  ];
  const engineAt = (to = sshd, path = socket(), sshOptions = optionsOf()) =>
    scene.provider({ address: { url: `ssh://root@127.0.0.1:${to.port}${path}`, sshOptions } });

  test('runs workspaces, whose agents come back by the address of the server', async () => {
    const provider = engineAt();
    const spec = makeSpec();
    // The gateway of any network is an address of this machine that its containers reach.
    const network = await scene.docker('network', 'create', `cde-gateway-${spec.workspaceId}`);
    const gateway = await scene.docker(
      ...['network', 'inspect', '--format', '{{range .IPAM.Config}}{{.Gateway}}{{end}}', network.trim()],
    );
    const requests: string[] = [];
    const server = createServer((request, response) => {
      requests.push(request.url!);
      response.writeHead(503).end();
    });
    server.on('upgrade', (request, stream) => {
      requests.push(request.url!);
      stream.destroy();
    });
    await once(server.listen(0, '0.0.0.0'), 'listening');
    const { port } = server.address() as AddressInfo;
    const ended: string[] = [];
    provider.onChange((id) => ended.push(id));
    try {
      const serverUrl = `http://${gateway.trim()}:${port}`;
      const { state } = await starting(provider, spec, { ...launchOf('b1'), serverUrl });
      await until(() => requests.length > 0, 'the agent');
      await scene.inside(spec, '1000', 'echo kept > ~ada/notes');
      const stopped = await finish(
        (known, context) => provider.stop(spec.workspaceId, known, context),
        state,
      );
      await until(() => ended.includes(spec.workspaceId), 'the event of its end');
      await finish((known, context) => provider.start(spec, launchOf('b2'), known, context), stopped.state);
      expect(await scene.inside(spec, '1000', 'cat ~ada/notes')).toBe('kept\n');
    } finally {
      await provider.close();
      server.close();
      server.closeAllConnections();
      await scene.docker('network', 'rm', network.trim());
    }
  });

  test('leaves no process behind', async () => {
    const provider = engineAt();
    await provider.nodes!();
    const ours = () =>
      run('sh', ['-c', 'cat /proc/[0-9]*/cmdline 2> /dev/null | tr "\\0" " "; true']).includes(
        `-l root -p ${sshd.port} -T`,
      );
    expect(ours()).toBe(true);
    await provider.close();
    await until(() => !ours(), 'the end of all ssh processes');
  });

  test('whose host key is unknown, or is another one, is not used', async () => {
    const none = join(folder, 'none');
    expect(await complaintOf(engineAt(sshd, socket(), optionsOf({ known: none })))).toMatch(
      /the host key of root@127\.0\.0\.1:\d+ is not known here\. Run "ssh /,
    );
    const other = join(folder, 'other');
    run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(folder, 'impostor')]);
    const impostor = readFileSync(join(folder, 'impostor.pub'), 'utf8');
    writeFileSync(other, `[127.0.0.1]:${sshd.port} ${impostor}`);
    expect(await complaintOf(engineAt(sshd, socket(), optionsOf({ known: other })))).toMatch(
      /is not the one in known_hosts/,
    );
  });

  test('that refuses the key says so', async () => {
    const key = join(folder, 'stranger');
    run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key]);
    expect(await complaintOf(engineAt(sshd, socket(), optionsOf({ key })))).toMatch(/refused the SSH key/);
  });

  test('on a machine without Docker, or where it does not run, says so', async () => {
    expect(await complaintOf(engineAt(sshd, '/nowhere/docker.sock'))).toMatch(/Docker does not run on root@/);
    const bare = await startSshd(join(folder, 'bare'), '127.0.0.1', { SetEnv: 'PATH=/nowhere' });
    writeFileSync(knownHosts, sshd.hostKey + bare.hostKey);
    try {
      expect(await complaintOf(engineAt(bare, socket(), optionsOf({ key: bare.key })))).toMatch(
        /there is no docker command on root@/,
      );
    } finally {
      bare.close();
    }
  });

  test('that is not there says so', async () => {
    expect(await complaintOf(engineAt({ ...sshd, port: await freePort() }))).toMatch(
      /there is no SSH connection to root@127\.0\.0\.1:\d+: .*Connection refused/,
    );
  });
});

describe('a Docker engine over TLS', () => {
  const inFolder = (name: string) => join(folder, name);
  const openssl = (...words: string[]) => run('openssl', words);
  /** A certificate of the authority, for a server at 127.0.0.1 and for a client. */
  function certificate(name: string, authority: string): void {
    openssl(
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
      ...['-CA', inFolder(`${authority}.pem`), '-CAkey', inFolder(`${authority}-key.pem`)],
      ...['-addext', 'subjectAltName=IP:127.0.0.1', '-addext', 'basicConstraints=CA:FALSE'],
      ...['-subj', `/CN=${name}`, '-keyout', inFolder(`${name}-key.pem`), '-out', inFolder(`${name}.pem`)],
    );
  }
  function authority(name: string): void {
    openssl(
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
      ...['-subj', `/CN=${name}`, '-keyout', inFolder(`${name}-key.pem`), '-out', inFolder(`${name}.pem`)],
    );
  }
  /** A folder as CDE_DOCKER_CERTIFICATES. */
  function certificates(name: string, trusted: string, client: string): string {
    const path = mkdtempSync(join(folder, name));
    const copies = {
      'ca.pem': `${trusted}.pem`,
      'cert.pem': `${client}.pem`,
      'key.pem': `${client}-key.pem`,
    };
    for (const [to, from] of Object.entries(copies))
      writeFileSync(join(path, to), readFileSync(inFolder(from)));
    return path;
  }

  test('is used if both sides trust each other, and says which does not', async () => {
    for (const name of ['authority', 'stranger-authority']) authority(name);
    certificate('server', 'authority');
    certificate('client', 'authority');
    certificate('stranger', 'stranger-authority');
    const server = createTlsServer(
      {
        cert: readFileSync(inFolder('server.pem')),
        key: readFileSync(inFolder('server-key.pem')),
        ca: readFileSync(inFolder('authority.pem')),
        requestCert: true,
        rejectUnauthorized: true,
      },
      (secure) => {
        const engine = connect(socket());
        secure.on('error', () => engine.destroy());
        engine.on('error', () => secure.destroy());
        secure.pipe(engine).pipe(secure);
      },
    );
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const { port } = server.address() as AddressInfo;
    const at = (folderOfCertificates: string) =>
      scene.provider({
        address: { url: `tcp://127.0.0.1:${port}`, certificates: folderOfCertificates },
      });
    const provider = at(certificates('good', 'authority', 'client'));
    try {
      const spec = makeSpec();
      const { state } = await starting(provider, spec);
      expect(await provider.observe(spec.workspaceId, state)).toEqual({ kind: 'running' });
      expect(await complaintOf(at(certificates('distrusts', 'stranger-authority', 'client')))).toMatch(
        /does not answer: .*(certificate|issuer)/,
      );
      expect(await complaintOf(at(certificates('unknown', 'authority', 'stranger')))).toMatch(
        /does not answer: /,
      );
    } finally {
      await provider.close();
      server.close();
    }
  });
});
