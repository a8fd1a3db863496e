import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { pack } from 'tar-stream';
import { expect, onTestFinished, test } from 'vitest';

const run = promisify(execFile);

/** Calls `install` of boot.py as a machine does, without the pauses between its attempts. */
const program = `
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("boot", sys.argv[1])
boot = importlib.util.module_from_spec(spec)
spec.loader.exec_module(boot)
boot.AGENT = sys.argv[2]
boot.PAUSE = boot.MAX_PAUSE = 0
boot.WAIT = float(sys.argv[4])
server = boot.Server({"serverUrl": sys.argv[3], "certificateAuthorities": None})
try:
    boot.install(server, "v1")
except boot.Failure as failure:
    print(json.dumps({"code": failure.code, "message": str(failure)}))
`;

async function archive(): Promise<Buffer> {
  const tar = pack();
  tar.entry({ name: 'enter.mjs', mode: 0o644 }, 'enter');
  tar.entry({ name: 'node', mode: 0o755 }, Buffer.alloc(200_000, 'x'));
  tar.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of tar) chunks.push(chunk as Buffer);
  // Uncompressed inside, so that a cut can be placed between two files.
  return gzipSync(Buffer.concat(chunks), { level: 0 });
}

/** Installs from a server that gives these answers one after the other, the last one for good. */
async function install(answers: ((reply: ServerResponse) => void)[], waitSeconds = 600) {
  const folder = await mkdtemp(join(tmpdir(), 'cde-boot-'));
  let asked = 0;
  const server = createServer((_, reply) => answers[Math.min(asked++, answers.length - 1)]!(reply));
  server.listen(0, '127.0.0.1');
  onTestFinished(async () => {
    server.closeAllConnections();
    server.close();
    await rm(folder, { recursive: true });
  });
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const agent = join(folder, 'agent');
  const file = join(import.meta.dirname, 'boot.py');
  const url = `http://127.0.0.1:${port}`;
  const { stdout } = await run('python3', ['-B', '-c', program, file, agent, url, String(waitSeconds)]);
  return { stdout, asked: () => asked, agent };
}

test('a machine repeats a download of the agent that was cut, refused or incomplete', async () => {
  const whole = await archive();
  const send = (bytes: Buffer, reply: ServerResponse) => {
    reply.writeHead(200, { 'content-length': whole.length });
    reply.write(bytes, () => reply.destroy());
  };
  const { stdout, agent, asked } = await install([
    (reply) => void reply.writeHead(503).end(),
    (reply) => void reply.destroy(),
    (reply) => send(whole.subarray(0, 100), reply),
    (reply) => send(whole.subarray(0, whole.length / 2), reply),
    // All files are there, so nothing but the length tells.
    (reply) => send(whole.subarray(0, whole.length - 8), reply),
    (reply) => void reply.writeHead(200, { 'content-length': whole.length }).end(whole),
  ]);
  expect(asked()).toBe(6);
  expect(stdout.match(/the download of the agent was cut \(.+\): next attempt in 0 s/g)).toHaveLength(3);
  expect(stdout).toContain('cde: the server does not answer: ');
  expect((await readdir(agent)).sort()).toEqual(['enter.mjs', 'node', 'version']);
  expect(await readFile(join(agent, 'enter.mjs'), 'utf8')).toBe('enter');
  expect((await readFile(join(agent, 'node'))).length).toBe(200_000);
});

test('a machine gives up a download that never arrives, and leaves no half of an agent', async () => {
  const { stdout, agent } = await install(
    [(reply) => void reply.writeHead(200, { 'content-length': 1000 }).write('x', () => reply.destroy())],
    -1,
  );
  expect(JSON.parse(stdout.trim().split('\n').at(-1)!)).toMatchObject({ code: 'server-unreachable' });
  await expect(readdir(agent)).rejects.toThrow('ENOENT');
});
