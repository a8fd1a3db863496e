import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { makePortGuard } from './port-guard.ts';

const self = process.getuid?.() ?? 0;
let root: string;
afterEach(() => rmSync(root, { recursive: true, force: true }));

interface Listener {
  port: number;
  uid: number;
  inode: number;
  /** The process that has it open, where it can be seen from here. */
  pid?: number;
  protocol?: 'tcp' | 'tcp6' | 'udp';
}

/** A /proc with these sockets. */
function machine(listeners: Listener[]) {
  root = mkdtempSync(join(tmpdir(), 'cde-proc-'));
  mkdirSync(join(root, 'proc/net'), { recursive: true });
  for (const table of ['tcp', 'tcp6', 'udp'] as const) {
    const lines = listeners
      .filter(({ protocol = 'tcp' }) => protocol === table)
      .map(({ port, uid, inode }) => {
        const state = table === 'udp' ? '07' : '0A';
        return ` 0: 0100007F:${port.toString(16).padStart(4, '0').toUpperCase()} 00000000:0000 ${state} 0:0 00:0 0 ${uid} 0 ${inode} 1`;
      });
    writeFileSync(join(root, 'proc/net', table), `  sl  local_address\n${lines.join('\n')}\n`);
  }
  for (const { pid, inode } of listeners) {
    if (pid === undefined) continue;
    mkdirSync(join(root, `proc/${pid}/fd`), { recursive: true });
    symlinkSync(`socket:[${inode}]`, join(root, `proc/${pid}/fd/3`));
    writeFileSync(join(root, `proc/${pid}/comm`), 'program\n');
  }
  return makePortGuard({
    shared: true,
    serverUrls: 'http://127.0.0.1:7080',
    root,
    addresses: () => ['192.0.2.9'],
  });
}
const at = (remotePort: number, remoteAddress = '127.0.0.1') => ({ remotePort, remoteAddress });

describe('in a network that is shared with the machine', () => {
  test("a program of one's own is opened", async () => {
    const guard = machine([{ port: 8000, uid: self, inode: 11, pid: 500 }]);
    await expect(guard.checkSocket(at(8000))).resolves.toBeUndefined();
    await expect(guard.checkSocket(at(8000, '::ffff:127.0.0.1'))).resolves.toBeUndefined();
  });

  test.each<[string, Listener]>([
    ["another user's", { port: 8000, uid: self + 1, inode: 11, pid: 500 }],
    ["of one's own user in another workspace", { port: 8000, uid: self, inode: 11 }],
    ["that is the server's", { port: 7080, uid: self, inode: 11, pid: 500 }],
  ])('a program %s is refused, at every address of the machine', async (_whose, listener) => {
    const guard = machine([listener]);
    for (const address of ['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1', '192.0.2.9'])
      await expect(guard.checkSocket(at(listener.port, address)), address).rejects.toMatchObject({
        code: 'target-forbidden',
      });
  });

  test('datagrams follow the same rule, by name too', async () => {
    const guard = machine([
      { port: 53, uid: self + 1, inode: 11, pid: 500, protocol: 'udp' },
      { port: 54, uid: self, inode: 12, pid: 501, protocol: 'udp' },
    ]);
    await expect(guard.checkDatagrams({ kind: 'udp', host: 'localhost', port: 53 })).rejects.toMatchObject({
      code: 'target-forbidden',
    });
    await expect(guard.checkDatagrams({ kind: 'udp', host: '127.0.0.1', port: 54 })).resolves.toBeUndefined();
  });

  test('connections to other machines are not restricted', async () => {
    await expect(machine([]).checkSocket(at(8000, '198.51.100.1'))).resolves.toBeUndefined();
  });
});

test.runIf(process.platform === 'linux')('of a real process it is known', async () => {
  root = mkdtempSync(join(tmpdir(), 'cde-proc-'));
  const program =
    "require('net').createServer().listen(0, '127.0.0.1', function () { console.log(this.address().port); })";
  const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const [data] = await once(child.stdout, 'data');
    const guard = makePortGuard({ shared: true, serverUrls: '' });
    await expect(guard.checkSocket(at(Number(data)))).resolves.toBeUndefined();
  } finally {
    child.kill('SIGKILL');
  }
});
