import { spawn } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { until } from '../../../tests/kit/until.ts';
import type { StepResult } from '../provider.ts';
import { findProgram } from './enclosure.ts';
import { detectIsolation } from './isolation.ts';
import { startTimeOf } from './processes.ts';
import { drive, fakeAgents, isRoot, launchOf, levelsHere, makeScene, makeSpec } from './testing.ts';

let scene: ReturnType<typeof makeScene>;
beforeEach(() => {
  scene = makeScene();
});
afterEach(() => scene.close());

async function begin(
  options: Parameters<typeof scene.provider>[1],
  local = {},
  workspaceId = 'w1',
): Promise<StepResult & { kind: 'done' }> {
  const provider = scene.provider('obedient', options);
  const move = await drive((state) =>
    provider.start(makeSpec(workspaceId, local), launchOf('b1'), state, scene.context),
  );
  if (move.kind !== 'done') throw new Error(JSON.stringify(move));
  return move;
}

const inside = (script: string) => scene.inside(script);

const enclosing = (await levelsHere()).filter((level) => level !== 'none');
describe.each(enclosing)('%s', (isolation) => {
  test('a workspace looks like an ordinary machine', async () => {
    await begin({ isolation }, { env: { COLOUR: 'a "b" c\'d\nline two', N: 3 } });
    const { out } = await inside(
      'id -un; id -u; hostname; pwd; echo $HOME $USER; getent passwd ada; printf "%s|%s\\n" "$COLOUR" "$N"; umask',
    );
    expect(out.split('\n').slice(0, 5)).toEqual(['ada', '1000', 'hello', '/home/ada', '/home/ada ada']);
    expect(out).toMatch(/ada:x:1000:1000:ada:\/home\/ada:\/bin\/(ba)?sh\na "b" c'd\nline two\|3\n0?022/);
    expect(await inside('script -qec tty /dev/null')).toMatchObject({
      status: 0,
      out: expect.stringMatching(/^\/dev\/pts\/\d+/),
    });
    const git =
      'git init -q r && cd r && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m m && git log --oneline | wc -l';
    expect(await inside(git)).toEqual({ status: 0, out: '1\n' });
    if (findProgram('ssh-keygen'))
      expect(
        await inside('ssh-keygen -q -t ed25519 -N "" -f k && ssh -G localhost | grep -c ^user'),
      ).toMatchObject({ status: 0 });
    if (existsSync('/usr/bin/python3'))
      expect(await inside('/usr/bin/python3 -c "import os; print(os.openpty() != None)"')).toEqual({
        status: 0,
        out: 'True\n',
      });
    const scratch =
      'for d in /tmp /var/tmp /dev/shm; do echo fine > $d/file && cat $d/file || echo $d; done; (sleep 0 &); echo > /dev/null';
    expect((await inside(scratch)).out).toBe('fine\nfine\nfine\n');
    // Private: the machine's /tmp is not visible, except for the path of the agent itself.
    const machines = mkdtempSync('/tmp/cde-of-the-machine-');
    try {
      const seen = (await inside('ls -a /tmp')).out.split('\n');
      expect(seen).toContain('file');
      expect(seen.join(' ')).not.toContain('cde-of-the-machine');
    } finally {
      rmSync(machines, { recursive: true });
    }
    expect((await inside('getent hosts localhost && [ -s /etc/resolv.conf ] && echo resolv')).out).toMatch(
      /localhost.*\nresolv/,
    );
    // Only the agent's own variables: nothing of the server's environment.
    expect((await inside('env -0 | cut -z -d= -f1 | sort -z | tr "\\0" " "')).out).toBe(
      'CDE_AGENT_TOKEN CDE_GATEWAY CDE_SERVER_URL COLOUR HOME LANG LOGNAME N PATH PWD SHELL USER '.replace(
        'N PATH',
        'N PATH',
      ),
    );
  });

  test('the token reaches the agent without ever being in an environment', async () => {
    await begin({ isolation });
    const seen = await inside(
      'cat /proc/[0-9]*/environ 2>/dev/null | tr "\\0" "\\n" | grep -a "token-of\\|^CDE_AGENT_TOKEN"; cat /proc/$PPID/fd/0',
    );
    // The agent's stdin is an unlinked file of another user.
    if (isRoot) expect(seen.out).toMatch(/^(CDE_AGENT_TOKEN=stdin\n)+cat: .*Permission denied\n$/);
    else expect(seen.out).toMatch(/^(CDE_AGENT_TOKEN=stdin\n)+token-of-b1$/);
    expect(readdirSync(join(scene.dataDir, 'run', 'w1')).filter((name) => name.startsWith('token'))).toEqual(
      [],
    );
  });

  test('the machine cannot be changed, and its private files cannot be seen', async () => {
    const bystander = spawn('sleep', ['1000']);
    const born = await startTimeOf(bystander.pid!);
    const secret = mkdtempSync(join(tmpdir(), 'cde-secret-'));
    try {
      writeFileSync(join(secret, 'file'), 'secret');
      await begin({ isolation });
      for (const place of [
        '/etc',
        '/usr',
        '/usr/bin',
        '/opt',
        '/',
        '/home',
        '/bin',
        '/var',
        '/run',
        '/proc/sys/kernel',
        '/dev',
      ]) {
        const { status } = await inside(`touch ${place}/cde-attack`);
        // New tmpfs folders. Without root, only the developer can own them.
        if (isRoot || !['/var', '/run', '/dev'].includes(place)) expect(status, place).not.toBe(0);
        expect(existsSync(`${place}/cde-attack`)).toBe(false);
      }
      expect((await inside('echo "x:x:0:0::/:/bin/sh" >> /etc/passwd')).status).not.toBe(0);
      for (const file of [
        '/etc/shadow',
        '/etc/gshadow',
        '/etc/shadow-',
        '/etc/sudoers',
        '/etc/ssh/ssh_host_ed25519_key',
        '/proc/1/environ',
        '/proc/kcore',
        '/dev/mem',
      ]) {
        if (file === '/proc/1/environ' && !isRoot) continue;
        if (file === '/proc/1/environ' && isolation === 'unshare') continue; // at this level pid 1 is the developer's own
        const { status, out } = await inside(`head -c 1 ${file}`);
        expect(status, `${file}: ${out}`).not.toBe(0);
      }
      expect((await inside('ls /etc/ssl/private')).status).not.toBe(0);
      for (const place of [
        scene.dataDir,
        join(scene.dataDir, 'homes'),
        secret,
        '/root',
        '/sys',
        '/srv',
        '/boot',
        '/dev/sda',
        '/dev/vda',
        '/proc/1/root/etc/shadow',
      ]) {
        expect((await inside(`cat ${place} ${place}/* 2>/dev/null`)).out, place).toBe('');
      }
      // Node and the agent are visible at their own paths, which may be below a user's home.
      const shown = /^\/home\/([^/]+)\//.exec(process.execPath)?.[1];
      const homes = ['ada', ...(shown ? [shown] : [])].sort();
      const listed = await inside('ls /home; ls /var/lib /run/systemd /run/docker.sock 2>/dev/null');
      expect(listed.out).toBe(`${homes.join('\n')}\n`);

      // `ps` shows how the workspace was started, but no path of the server's data.
      const commands = (await inside('cat /proc/[0-9]*/cmdline /proc/1/environ 2>/dev/null')).out;
      expect(commands).toContain(process.execPath);
      expect(commands).not.toContain(scene.dataDir);
      const pids = (await inside('ls /proc | grep -E "^[0-9]+$" | wc -l')).out;
      expect(Number(pids)).toBeLessThan(10);
      await inside(`kill -9 ${bystander.pid} ${process.pid}; kill -9 1`);
      expect(await startTimeOf(bystander.pid!)).toBe(born);
      expect((await inside('echo alive')).out).toBe('alive\n');
      if (isRoot) expect(statSync(`/proc/${scene.agents()[0]}`).uid).toBeGreaterThan(1000);
    } finally {
      bystander.kill('SIGKILL');
      rmSync(secret, { recursive: true });
    }
  });

  test('there are no privileges, and none can be gained', async () => {
    await begin({ isolation });
    const { out } = await inside('grep -E "^(NoNewPrivs|Cap(Inh|Prm|Eff|Amb)|Groups)" /proc/self/status');
    expect(out).toMatch(/NoNewPrivs:\s*1/);
    expect(out.match(/Cap\w+:\s*0{16}/g)).toHaveLength(4);
    expect(
      (
        await inside(
          'find / -xdev -perm -4000 -newermt 1970-01-01 2>/dev/null | head -1; su -c id < /dev/null',
        )
      ).out,
    ).not.toMatch(/uid=0/);
    expect((await inside('mknod /tmp/disk b 8 0')).status).not.toBe(0);
    expect((await inside('mount -t tmpfs tmpfs /tmp')).status).not.toBe(0);
    // New namespaces must work, or the attacks below would prove nothing.
    expect(
      (await inside("unshare --user --map-root-user --mount sh -c 'mount -t tmpfs tmpfs /tmp && id -u'")).out,
    ).toBe('0\n');
    // Root in a new namespace still cannot undo the mounts.
    for (const attack of [
      'mount -o remount,bind,rw /usr && touch /usr/cde-attack',
      'mount -o remount,rw / && touch /cde-attack',
      'umount /etc/passwd && cat /etc/passwd',
      'umount -l /proc && ls /proc/1',
      'mount -t proc proc /proc && cat /proc/sys/kernel/core_pattern > /proc/sys/kernel/core_pattern',
      'mknod /tmp/disk b 8 0 && head -c1 /tmp/disk',
      'hostname attacked && hostname',
    ]) {
      expect(
        (await inside(`unshare --user --map-root-user --mount sh -c '${attack}'`)).status,
        attack,
      ).not.toBe(0);
    }
    expect(existsSync('/usr/cde-attack')).toBe(false);
  });

  test('the agent can be in a private folder, and the data directory below a visible one', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'cde-agent-'));
    const hidden = makeScene({ dataDir: join(folder, 'shown/data') });
    try {
      chmodSync(folder, 0o700);
      mkdirSync(join(folder, 'shown/data'), { recursive: true });
      writeFileSync(join(folder, 'shown/agent.cjs'), fakeAgents.obedient);
      const command = [process.execPath, join(folder, 'shown/agent.cjs'), hidden.tag];
      const provider = hidden.provider('obedient', {
        isolation,
        agent: { command, readOnlyPaths: [join(folder, 'shown')] },
      });
      const move = await drive((state) =>
        provider.start(makeSpec('w1'), launchOf('b1'), state, hidden.context),
      );
      expect(move).toMatchObject({ kind: 'done' });
      const [ask, answer] = ['ask-0', 'answer-0'].map((name) => join(hidden.home('w1'), name));
      writeFileSync(ask!, `ls ${folder} ${folder}/shown ${folder}/shown/data; touch ${folder}/shown/x`, {
        mode: 0o644,
      });
      await until(() => existsSync(answer!), 'an answer');
      const { status, out } = JSON.parse(readFileSync(answer!, 'utf8'));
      expect(status).not.toBe(0);
      expect(out).toMatch(/shown\n\n.*shown:\nagent.cjs\ndata\n\n.*data:\n/);
      expect(out).not.toMatch(/homes/);

      if (isRoot) {
        chmodSync(join(folder, 'shown'), 0o700);
        const refused = await drive((state) =>
          provider.start(makeSpec('w2'), launchOf('b1'), state, hidden.context),
        );
        expect(refused).toMatchObject({
          kind: 'failed',
          error: { code: 'agent-not-readable', hint: expect.stringMatching(/chmod/) },
        });
      }
    } finally {
      await hidden.close();
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test.runIf(isRoot)('works for a server that is not root', async () => {
    const uid = 61_000 + (process.pid % 900);
    for (const folder of [scene.dataDir, scene.skeleton]) chownSync(folder, uid, uid);
    const words = [scene.dataDir, scene.skeleton, scene.tag, isolation, fakeAgents.obedient, scene.tag, 'b1'];
    const drop = ['--reuid', String(uid), '--regid', String(uid), '--clear-groups', '--'];
    const server = spawn(
      'setpriv',
      [...drop, process.execPath, join(import.meta.dirname, 'crashing.ts'), ...words],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    const said: string[] = [];
    server.stdout.on('data', (data) => said.push(String(data)));
    try {
      await until(() => said.join('').includes('ready'), 'ready');
      server.stdin.write('go\n');
      await until(() => said.join('').match(/done|failed/), 'the end of the move');
      expect(said.join('')).toMatch(/done/);
      const [agent] = await until(() => (scene.agents().length === 1 ? scene.agents() : null), 'the agent');
      expect(statSync(`/proc/${agent}`).uid).toBe(uid);
      expect(
        (await inside('id -un; id -u; touch /etc/x || ls /home; grep CapEff /proc/self/status')).out,
      ).toMatch(/^ada\n1000\n(.*\n)*ada\nCapEff:\s*0{16}\n/);
      // Without root, the environment of pid 1 is readable too.
      const shown = (await inside('cat /proc/[0-9]*/cmdline; cat /proc/1/environ')).out;
      expect(shown).toContain('HOME=/home/ada');
      expect(shown).not.toContain(scene.dataDir);
      server.stdin.write('stop\n');
      await until(() => said.join('').includes('stopped: done'), 'the end of the stop');
      expect(scene.agents()).toEqual([]);
      expect(scene.supervisors()).toEqual([]);
    } finally {
      server.kill('SIGKILL');
    }
  });
});

test.runIf(process.platform === 'linux')(
  "a template's PATH or preload does not reach programs that run with the server's privileges",
  async () => {
    const trap = mkdtempSync(join(tmpdir(), 'cde-trap-'));
    try {
      for (const name of [
        'sh',
        'dd',
        'rm',
        'mkdir',
        'mkfifo',
        'flock',
        'setpriv',
        'unshare',
        'bwrap',
        'wc',
        'mv',
      ]) {
        writeFileSync(join(trap, name), `#!/bin/sh\ntouch ${trap}/caught-$(basename $0)\nexit 1\n`, {
          mode: 0o755,
        });
      }
      await begin({}, { env: { PATH: `${trap}:/usr/bin:/bin`, LD_PRELOAD: `${trap}/none.so` } });
      expect((await inside('echo $PATH')).out).toContain(`${trap}:/usr/bin:/bin`);
      expect(existsSync(join(trap, 'caught-dd'))).toBe(false);
      expect(readdirSync(trap).filter((name) => name.startsWith('caught'))).toEqual([]);
    } finally {
      rmSync(trap, { recursive: true });
    }
  },
);

test('without the required programs there is no isolation, and the status says why', async () => {
  const linux = process.platform === 'linux';
  const none = await detectIsolation('auto', scene.dataDir, () => null);
  expect(none).toMatchObject({ level: 'none', available: true });
  if (linux)
    expect(none.sentence).toMatch(
      /^none: a plain process tree.*bwrap is not installed; unshare: unshare is not installed/,
    );
  expect(await detectIsolation('bwrap', scene.dataDir, () => null)).toMatchObject({
    level: 'bwrap',
    available: false,
  });
  if (enclosing.includes('unshare')) {
    const without = (missing: string) => (name: string) => (name === missing ? null : findProgram(name));
    expect(await detectIsolation('auto', scene.dataDir, without('bwrap'))).toMatchObject({
      level: 'unshare',
      refused: ['bwrap: bwrap is not installed'],
    });
  }
});
