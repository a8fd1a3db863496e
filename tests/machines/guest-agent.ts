import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { patienceMs } from '../kit/until.ts';

interface Status {
  exited: boolean;
  exitcode?: number;
  'out-data'?: string;
  'err-data'?: string;
}

const decode = (text = '') => Buffer.from(text, 'base64').toString();

/**
 * Runs a script in a guest as root, through QEMU's agent in it. Waits until that has started; a guest has no other
 * way in. Rejects with `code` and `stderr` if the script fails.
 */
export async function runInGuest(socketPath: string, script: string, forMs = patienceMs): Promise<string> {
  const until = Date.now() + forMs;
  for (;;) {
    const session = await openSession(socketPath, until);
    try {
      if (await session.isReady()) return await session.run(script);
    } finally {
      session.close();
    }
    if (Date.now() > until) throw new Error(`No agent answered in the guest for ${forMs} ms`);
  }
}

async function openSession(path: string, until: number) {
  let socket: Socket;
  for (;;) {
    const attempt = connect(path);
    const isOpen = await new Promise<boolean>((resolve) => {
      attempt.once('connect', () => resolve(true)).once('error', () => resolve(false));
    });
    socket = attempt;
    if (isOpen) break;
    if (Date.now() > until) throw new Error(`No guest has the socket ${path}`);
    await pause(200);
  }
  socket.on('error', () => {});
  const waiting: ((reply: { return?: unknown; error?: { desc: string } } | null) => void)[] = [];
  socket.once('close', () => {
    for (const take of waiting.splice(0)) take(null);
  });
  createInterface({ input: socket }).on('line', (line) => {
    const text = line.replaceAll('\xff', '').replaceAll('\ufffd', '');
    if (text.trim() !== '') waiting.shift()?.(JSON.parse(text));
  });
  const next = async () => {
    const said = await new Promise<Parameters<(typeof waiting)[number]>[0]>((resolve) => {
      if (socket.destroyed) resolve(null);
      else waiting.push(resolve);
    });
    if (!said) throw new Error('The guest ended');
    if (said.error) throw new Error(said.error.desc);
    return said.return;
  };
  const send = (execute: string, values?: Record<string, unknown>) => {
    socket.write(`${JSON.stringify({ execute, arguments: values })}\n`);
    return next();
  };
  return {
    close: () => socket.destroy(),
    /** Forgets what an earlier session left in the line. False if nothing answers yet. */
    async isReady(): Promise<boolean> {
      const id = Math.floor(Math.random() * 2 ** 31);
      const ready = (async () => {
        for (let said = await send('guest-sync', { id }); said !== id; ) said = await next();
        return true;
      })().catch(() => false);
      return Promise.race([ready, pause(5000, false)]);
    },
    async run(script: string): Promise<string> {
      const { pid } = (await send('guest-exec', {
        ...{ path: '/bin/sh', arg: ['-c', script], 'capture-output': true },
        env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'LANG=C.UTF-8'],
      })) as { pid: number };
      for (;;) {
        const status = (await send('guest-exec-status', { pid })) as Status;
        if (!status.exited) {
          await pause(100);
          continue;
        }
        const stdout = decode(status['out-data']);
        if (status.exitcode === 0) return stdout;
        const stderr = decode(status['err-data']);
        throw Object.assign(new Error(`The script failed with ${status.exitcode}: ${stderr}`), {
          code: status.exitcode,
          stdout,
          stderr,
        });
      }
    },
  };
}
