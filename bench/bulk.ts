/**
 * Bulk throughput of `ssh hello.cde`, download and upload: over relay (client, server with its satellite, and agent in
 * separate processes), direct-tcp and direct-udp, with its own session and over the background process's session.
 * Baseline: OpenSSH to sshd on loopback, in the same run. Prints medians and ratios.
 * Usage: node bench/bulk.ts [ROUNDS]. Needs ssh and sshd.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { cde } from '../tests/kit/machine.ts';
import { startSshd } from '../tests/kit/sshd.ts';
import { median, warmServer } from './harness.ts';

const rounds = Number(process.argv[2] ?? 5);
const megabytes = 256;
const { machine, server } = await warmServer();
const sshd = await startSshd(machine.folder);
const config = join(machine.env.HOME!, '.ssh/config');
await mkdir(join(machine.env.HOME!, '.ssh'), { recursive: true, mode: 0o700 });
await machine.cde('config-ssh');
const through = (path: string) => [
  ...[
    '-F',
    config,
    '-o',
    `ProxyCommand=${process.execPath} ${cde} ssh --stdio --path=${path} %n`,
    'hello.cde',
  ],
];
const alone = { CDE_BACKGROUND: 'off' };
const ways: Record<string, { words: string[]; env?: Record<string, string> }> = {
  sshd: { words: [...sshd.options, sshd.host] },
  relay: { words: through('relay'), env: alone },
  'relay, shared': { words: through('relay') },
  'direct-tcp': { words: through('direct-tcp'), env: alone },
  'direct-tcp, shared': { words: through('direct-tcp') },
  'direct-udp': { words: through('direct-udp'), env: alone },
};

/** The MB/s of `script`. The shell produces and consumes the data, so that none of it passes through this process. */
async function rate(script: string, words: string[], env: Record<string, string> = {}): Promise<number> {
  const child = spawn('sh', ['-c', script, 'ssh', ...words], {
    env: { ...machine.env, ...env },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let began = 0;
  child.stdout.once('data', () => {
    began = performance.now();
  });
  const [code] = await once(child, 'exit');
  if (code !== 0) throw new Error(`${script} exited with ${code}`);
  return (megabytes * 1e3) / (performance.now() - began);
}
// Measured from the first byte; ssh.ts measures the time to connect.
const scripts = {
  download: `ssh "$@" 'head -c ${megabytes}MB /dev/zero' | { head -c 1; cat >/dev/null; }`,
  upload: `head -c ${megabytes}MB /dev/zero | ssh "$@" '{ head -c 1; cat >/dev/null; }'`,
};

try {
  const results = Object.fromEntries(
    Object.keys(ways).map((name) => [name, { download: [] as number[], upload: [] as number[] }]),
  );
  for (let round = 0; round <= rounds; round++)
    for (const [name, { words, env }] of Object.entries(ways)) {
      for (const [what, script] of Object.entries(scripts)) {
        const got = await rate(script, words, env);
        // The first round is a warm-up.
        if (round > 0) results[name]![what as keyof typeof scripts].push(got);
      }
    }
  const base = results.sshd!;
  console.log(`${megabytes} MB, ${rounds} rounds, medians in MB/s (ratio to sshd)`);
  for (const [name, { download, upload }] of Object.entries(results)) {
    const [down, up] = [median(download), median(upload)];
    console.log(
      `${name.padEnd(20)} download ${down.toFixed(0).padStart(4)} (${(down / median(base.download)).toFixed(2)})   upload ${up.toFixed(0).padStart(4)} (${(up / median(base.upload)).toFixed(2)})`,
    );
  }
} finally {
  sshd.close();
  await server.stop();
  await machine.remove();
}
