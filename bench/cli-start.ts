/**
 * How long `cde` takes to start. Baseline: `node -e 0` with the same Node, in interleaved runs. Prints medians and
 * ratios. Goal: `cde --version` takes at most 1.5 × `node -e 0`. Usage: node bench/cli-start.ts [RUNS]
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';

const runs = Number(process.argv[2] ?? 30);
const cde = fileURLToPath(new URL('../cli/cde.mjs', import.meta.url));
const home = mkdtempSync(join(tmpdir(), 'cde-bench-'));

// A server in its own thread, because spawnSync blocks this one. It rejects the ticket request at once, so that
// `ssh --stdio` is measured up to the server's answer.
const server = new Worker(
  `const { createServer } = require('node:http');
   const { parentPort } = require('node:worker_threads');
   createServer((request, response) => {
     const refuse = request.url.endsWith('/tickets');
     response.writeHead(refuse ? 403 : 200, { 'content-type': 'application/json' });
     response.end(JSON.stringify(refuse ? { code: 'forbidden', message: 'No.' } : { items: [], next: null }));
   }).listen(0, '127.0.0.1', function () { parentPort.postMessage(this.address().port); });`,
  { eval: true },
);
const port = await new Promise<number>((resolve) => server.once('message', resolve));
const env = { PATH: process.env.PATH, HOME: home, CDE_URL: `http://127.0.0.1:${port}`, CDE_TOKEN: 'cde_x' };

const cases: Record<string, string[]> = {
  'node -e 0': ['-e', '0'],
  'cde --version': [cde, '--version'],
  'cde --help': [cde, '--help'],
  'cde list': [cde, 'list'],
  'cde ssh --stdio (to the ticket)': [cde, 'ssh', '--stdio', 'web'],
};
const times = new Map<string, number[]>(Object.keys(cases).map((name) => [name, []]));
for (let run = -2; run < runs; run++)
  for (const [name, args] of Object.entries(cases)) {
    const started = performance.now();
    spawnSync(process.execPath, args, { env, stdio: 'ignore' });
    // The first two runs fill the compile cache and do not count.
    if (run >= 0) times.get(name)!.push(performance.now() - started);
  }
const median = (values: number[]) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
const base = median(times.get('node -e 0')!);
for (const [name, values] of times) {
  const middle = median(values);
  process.stdout.write(
    `${name.padEnd(34)} ${middle.toFixed(1).padStart(7)} ms  ${(middle / base).toFixed(2)} ×\n`,
  );
}
await server.terminate();
rmSync(home, { recursive: true, force: true });
