// Locks between processes on one machine.
import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { cacheDir } from './layout.ts';

/** Runs `work` while no other process on this machine runs work under the same lock name. */
export async function withLock<T>(name: string, work: () => Promise<T>): Promise<T> {
  mkdirSync(cacheDir, { recursive: true });
  const file = join(cacheDir, `${name}.lock`);
  // The kernel releases the lock when this process ends in any way: flock holds it while its child's stdin is open.
  const holder = spawn('flock', [file, 'sh', '-c', 'echo held; cat'], { stdio: ['pipe', 'pipe', 'inherit'] });
  try {
    await new Promise<void>((resolve, reject) => {
      holder.once('error', reject);
      holder.stdout.once('data', () => resolve());
      holder.once('exit', () => reject(new Error(`Cannot lock ${file}`)));
    });
    return await work();
  } finally {
    holder.stdin.end();
  }
}

/** Runs `work` while no other process brings the test cluster up or down. */
export const withClusterLock = <T>(work: () => Promise<T>): Promise<T> => withLock('cluster', work);
