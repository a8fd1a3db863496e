// One up or down at a time on a machine.
import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { cacheDir } from './layout.ts';

/** Runs `work` while no other up or down is under way on this machine. */
export async function withClusterLock<T>(work: () => Promise<T>): Promise<T> {
  mkdirSync(cacheDir, { recursive: true });
  const file = join(cacheDir, 'cluster.lock');
  // The kernel lets go of it with this process, however that ends: flock holds it while its child's stdin is open.
  const holder = spawn('flock', [file, 'sh', '-c', 'echo held; cat'], { stdio: ['pipe', 'pipe', 'inherit'] });
  try {
    await new Promise<void>((resolve, reject) => {
      holder.once('error', reject);
      holder.stdout.once('data', () => resolve());
      holder.once('exit', () => reject(new Error(`${file} could not be locked`)));
    });
    return await work();
  } finally {
    holder.stdin.end();
  }
}
