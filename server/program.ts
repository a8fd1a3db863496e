import { existsSync, rmSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { SettingsError } from '@cde/api/settings.ts';
import { systemErrorReason } from '@cde/api/system-errors.ts';
import { collectBuffersEarly } from '@cde/tunnel/gc.ts';
import { useProxyForFetch } from '@cde/tunnel/network/proxy.ts';
import { type Config, describeSettings, readConfig, unknownSettings } from './config.ts';
import { startControlPlane } from './control-plane.ts';
import { type EmbeddedPostgres, startEmbedded } from './database/embedded.ts';
import { MigrationError, migrate } from './database/migrate.ts';
import { type Database, isDatabaseFull, isUnavailable, openDatabase } from './database/pool.ts';
import { checkSecretKey, SecretKeyError } from './identity/keys.ts';
import { makeOneTimeLink } from './identity/sessions/sessions.ts';
import { ensureOwner, findUser } from './identity/users/users.ts';
import { type Logger, makeLog } from './log.ts';
import { version } from './version.ts';

class StartError extends Error {
  readonly hint: string;
  constructor(message: string, hint: string, cause?: unknown) {
    super(message, { cause });
    this.hint = hint;
  }
}

async function connect(
  config: Config,
  log: Logger,
): Promise<{ database: Database; embedded: EmbeddedPostgres | null }> {
  let embedded: EmbeddedPostgres | null = null;
  if (!config.databaseUrl) {
    try {
      embedded = await startEmbedded(config.dataDir);
    } catch (error) {
      throw new StartError(
        `The embedded PostgreSQL does not start: ${(error as Error).message}`,
        `Its files are in ${join(config.dataDir, 'postgres')}, and nothing was deleted. Alternatively, set DATABASE_URL to your own PostgreSQL.`,
        error,
      );
    }
    if (embedded.adopted) log.info('adopted the PostgreSQL that an earlier server left running');
  }
  const database = openDatabase(embedded?.url ?? config.databaseUrl!, {
    // A reconcile step uses two connections, one of them for its lock. Requests have ten more.
    max: 10 + 2 * config.concurrency,
    onError: (error) => log.warn({ err: error }, 'a database connection broke'),
  });
  try {
    await migrateWhenReachable(config, database, log);
    return { database, embedded };
  } catch (error) {
    await database.close();
    // Another server may be using an adopted one.
    if (!embedded?.adopted) await embedded?.stop();
    throw error;
  }
}

/** Migrates once the database is reachable: in a cluster, server and database start at the same time in any order. */
async function migrateWhenReachable(config: Config, database: Database, log: Logger): Promise<void> {
  const deadline = Date.now() + config.databaseWait * 1000;
  for (let hasWarned = false; ; ) {
    try {
      await checkSecretKey(database.pool, config);
      for (const name of await migrate(database.pool)) log.info(`migrated: ${name}`);
      return;
    } catch (error) {
      if (isDatabaseFull(error))
        throw new StartError(
          `The disk of the database is full: ${(error as Error).message}`,
          'Free disk space, then start the server again. No data was lost.',
          error,
        );
      if (!isUnavailable(error)) throw error;
      // If a name has several addresses and all refuse, Node's error has a code and no message.
      const why = (error as Error).message || (error as NodeJS.ErrnoException).code;
      if (Date.now() > deadline)
        throw new StartError(
          `The database does not answer: ${why}`,
          'Check DATABASE_URL, that PostgreSQL is running, and that it accepts connections from this machine.',
          error,
        );
      if (!hasWarned)
        log.warn(`the database does not answer yet (${why}); retrying for ${config.databaseWait} s`);
      hasWarned = true;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
}

/** On a server without users: creates the owner, and a one-time code for the person who started the server. */
async function firstStart(
  config: Config,
  database: Database,
): Promise<{ code: string; username: string } | null> {
  const file = join(config.dataDir, 'first-start.json');
  const { created, user } = await ensureOwner(database, {
    // The username becomes a Unix user in workspaces, where it must not be root.
    username: userInfo().username === 'root' ? 'owner' : userInfo().username,
    now: () => new Date(),
  });
  if (!created && !existsSync(file)) return null;
  const before = existsSync(file) ? (JSON.parse(await readFile(file, 'utf8')) as { username: string }) : null;
  const link = await makeOneTimeLink(database, user.id, () => new Date());
  const first = {
    url: config.accessUrl,
    oneTimeCode: link.code,
    username: before?.username ?? user.username,
  };
  await writeFile(file, `${JSON.stringify(first)}\n`, { mode: 0o600 });
  return { code: link.code, username: first.username };
}

/**
 * `sign-in-link [USERNAME]`: recovers access for an owner who has lost password, token and browser. Requires access to the
 * machine. Works with and without a running server.
 */
async function signInLink(args: string[]): Promise<void> {
  const username = args[0]?.startsWith('-') ? undefined : args[0];
  const config = readConfig(username === undefined ? args : args.slice(1), process.env);
  // Otherwise a forgotten setting would create an empty database, and a link that no server accepts.
  if (!config.databaseUrl && !existsSync(join(config.dataDir, 'postgres')))
    throw new StartError(
      `There is no database in ${config.dataDir}.`,
      'Use the settings of the server: CDE_DATA_DIR or DATABASE_URL, and CDE_ACCESS_URL or CDE_LISTEN.',
    );
  const { database, embedded } = await connect(config, makeLog('error'));
  try {
    const user =
      username === undefined
        ? (await ensureOwner(database, { username: 'owner', now: () => new Date() })).user
        : await findUser(database.db, username);
    if (!user)
      throw new StartError(`There is no user ${username}.`, 'Omit the name to sign in as the first owner.');
    const { path, expiresAt } = await makeOneTimeLink(database, user.id, () => new Date());
    process.stdout.write(`${config.accessUrl}${path}\n`);
    process.stderr.write(
      `Open the link to sign in as ${user.username}. It works once, until ${expiresAt.toLocaleTimeString()}.\n`,
    );
  } finally {
    await database.close();
    if (embedded && !embedded.adopted) await embedded.stop();
  }
}

/**
 * `check-config`: validates the settings without starting a server. The Helm chart runs it before an installation or
 * upgrade changes anything; CDE_CHECK_REQUIRED lists variables that must be set.
 */
function checkConfig(args: string[]): void {
  const { env } = process;
  const config = readConfig(args, env);
  const [unknown] = unknownSettings(env);
  if (unknown)
    throw new SettingsError(
      `${unknown} is not a setting of the server.`,
      'docs/configuration.md lists them; `--help` prints them.',
    );
  for (const name of (env.CDE_CHECK_REQUIRED ?? '').split(' ').filter(Boolean))
    if (!env[name])
      throw new SettingsError(
        `${name} is empty: its Secret, or the key in it, does not exist.`,
        'Create the Secret in the namespace of the release, or correct its name and key in the Helm values.',
      );
  process.stdout.write(`The settings are valid. The access URL is ${config.accessUrl}.\n`);
}

async function main(): Promise<void> {
  const args = process.argv.slice(2);
  if (args[0] === 'check-config') return checkConfig(args.slice(1));
  if (args[0] === 'sign-in-link') return signInLink(args.slice(1));
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(
      `cde server ${version}\n\nSettings, as a flag or in the environment:\n${describeSettings()}\n`,
    );
    return;
  }
  if (args.includes('--version')) {
    process.stdout.write(`${version}\n`);
    return;
  }
  const config = readConfig(args, process.env);
  // Relaying is only one task of this process, so new objects keep their usual space.
  collectBuffersEarly({ smallNewSpace: false });
  useProxyForFetch();
  const log = makeLog(config.logLevel);
  await mkdir(config.dataDir, { recursive: true, mode: 0o711 }).catch((error: NodeJS.ErrnoException) => {
    throw new StartError(
      `The data directory ${config.dataDir} cannot be created: ${systemErrorReason(error) ?? error.message}.`,
      'Choose another one with CDE_DATA_DIR.',
      error,
    );
  });
  const { database, embedded } = await connect(config, log);
  embedded?.supervise((event, detail) => {
    if (event === 'restarted') log.warn('restarted the embedded PostgreSQL');
    else if (event === 'exited') log.error(`the embedded PostgreSQL exited: ${detail}; restarting it`);
    else log.error(`the embedded PostgreSQL does not start: ${detail}; retrying`);
  });
  const server = await startControlPlane({ config, database, log }).catch(
    async (error: NodeJS.ErrnoException) => {
      await database.close();
      if (!embedded?.adopted) await embedded?.stop();
      if (error.code === 'EADDRINUSE')
        throw new StartError(
          `Port ${config.listen.port} on ${config.listen.host} is in use.`,
          'Another cde server may be running. Stop it, or choose another port: CDE_LISTEN=127.0.0.1:7081',
          error,
        );
      if (error.code === 'EACCES' || error.code === 'EADDRNOTAVAIL')
        throw new StartError(
          `Cannot listen on ${config.listen.host}:${config.listen.port}: ${error.message}`,
          'Choose another address with CDE_LISTEN.',
          error,
        );
      throw error;
    },
  );

  let stopping = false;
  const stop = async (why: string) => {
    if (stopping) return;
    stopping = true;
    log.info(`stopping (${why})`);
    // If anything hangs, the process still exits. Builds in progress continue after the next start.
    setTimeout(() => process.exit(1), 20_000).unref();
    await server.stop();
    await database.close();
    await embedded?.stop();
    process.exit(0);
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => void stop(signal));
  // Started by `cde server start`, which is responsible for stopping this process.
  if (process.send) process.on('disconnect', () => void stop('the parent process exited'));

  // With port 0 the server has chosen one.
  const { accessUrl } = server.app.config;
  const first = await firstStart({ ...config, accessUrl }, database);
  log.info(
    {
      url: accessUrl,
      version,
      dataDir: config.dataDir,
      database: embedded ? 'embedded' : 'DATABASE_URL',
    },
    'cde server is ready',
  );
  if (process.send) {
    process.send({
      type: 'ready',
      url: accessUrl,
      dataDir: config.dataDir,
      firstStart: first,
      docker: server.app.providers.has('docker'),
    });
    // Sent by the parent when the first start is complete and the code is no longer needed.
    process.on('message', (message: { type?: string }) => {
      if (message?.type === 'first-start-done')
        rmSync(join(config.dataDir, 'first-start.json'), { force: true });
    });
  } else if (first && process.stdout.isTTY) {
    process.stdout.write(`Sign in once as ${first.username}: ${accessUrl}/sign-in#code=${first.code}\n`);
  } else if (first) {
    // The link itself must not be in the log, because it signs anyone who reads it in as the owner.
    log.info(
      'no one has signed in yet; run `cde server sign-in-link` on this machine to sign in as the first owner',
    );
  }
}

main().catch((error) => {
  if ([SettingsError, MigrationError, SecretKeyError, StartError].some((kind) => error instanceof kind)) {
    process.stderr.write(`cde server: ${error.message}\n${error.hint}\n`);
    process.exit(error instanceof SettingsError ? 2 : 1);
  }
  process.stderr.write(`cde server: ${(error as Error).stack ?? error}\n`);
  process.exit(1);
});
