import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cacheDir, shortHash } from '../cluster/layout.ts';
import { logProgress, requirePackages, runAsync } from '../cluster/machine.ts';
import { freePort } from '../kit/free-port.ts';
import { until } from '../kit/until.ts';

/** The server's other dependencies are for other services than EC2. */
const requirements = ['moto[ec2]==5.2.5', 'flask==3.1.3', 'flask-cors==6.0.5'];

/** The program of moto's server, installed into the cache the first time. */
async function motoProgram(): Promise<string> {
  const folder = join(cacheDir, `moto-${shortHash(...requirements)}`);
  const program = join(folder, 'bin', 'moto_server');
  // An environment cannot be moved once it is made, so a mark says that it is complete.
  const mark = join(folder, 'complete');
  if (existsSync(mark)) return program;
  requirePackages('python3', 'python3-venv');
  logProgress('Installing moto (once)');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(cacheDir, { recursive: true });
  await runAsync('python3', ['-m', 'venv', folder]);
  await runAsync(join(folder, 'bin', 'pip'), ['install', '--quiet', ...requirements]);
  writeFileSync(mark, '');
  return program;
}

export interface Moto {
  url: string;
  close(): Promise<void>;
}

/** EC2's API, in memory, on a port of its own. */
export async function startMoto(folder: string): Promise<Moto> {
  const program = await motoProgram();
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const log = join(folder, 'moto.log');
  const output = openSync(log, 'a');
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', program, '-H', '127.0.0.1', '-p', String(port)], {
    stdio: ['ignore', output, output],
  });
  const exited = once(child, 'exit');
  const failed = exited.then(() => {
    throw new Error(`moto ended:\n${readFileSync(log, 'utf8').slice(-4000)}`);
  });
  failed.catch(() => {});
  const answers = until(
    () =>
      fetch(`${url}/moto-api/`).then(
        (reply) => reply.ok,
        () => false,
      ),
    'moto',
  );
  await Promise.race([answers, failed]);
  return {
    url,
    async close() {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

/** For tests whose instances boot nothing: of this run, unless CDE_TEST_MOTO names another. */
export default async function setup() {
  if (process.env.CDE_TEST_MOTO) return;
  const folder = await mkdtemp(join(tmpdir(), 'cde-moto-'));
  const remove = () => rm(folder, { recursive: true, force: true });
  try {
    const moto = await startMoto(folder);
    process.env.CDE_TEST_MOTO = moto.url;
    return async () => {
      await moto.close();
      await remove();
    };
  } catch (error) {
    // The tests of other engines run without it.
    process.env.CDE_TEST_MOTO_MISSING = (error as Error).message.split('\n')[0];
    await remove();
  }
}

/** The URL; throws if it could not be started. */
export function testMoto(): string {
  const url = process.env.CDE_TEST_MOTO;
  if (!url) throw new Error(`No moto: ${process.env.CDE_TEST_MOTO_MISSING}`);
  return url;
}
