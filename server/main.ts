import { existsSync, rmSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { systemErrorReason } from '@cde/api/system-errors.ts';
import { collectBuffersEarly } from '@cde/tunnel/gc.ts';
import { useProxyForFetch } from '@cde/tunnel/network/proxy.ts';
import { type Config, ConfigError, describeSettings, readConfig, unknownSettings } from './config.ts';
import { startControlPlane, version } from './control-plane.ts';
import { type EmbeddedPostgres, startEmbedded } from './database/embedded.ts';
import { MigrationError, migrate } from './database/migrate.ts';
import { type Database, isDatabaseFull, isUnavailable, openDatabase } from './database/pool.ts';
import { checkSecretKey, SecretKeyError } from './identity/keys.ts';
import { makeOneTimeLink } from './identity/sessions.ts';
import { ensureOwner, findUser } from './identity/users.ts';
import { type Logger, makeLog } from './log.ts';

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
        `Its files are in ${join(config.dataDir, 'postgres')} (nothing was removed). Or set DATABASE_URL to a PostgreSQL of your own.`,
        error,
      );
    }
    if (embedded.adopted) log.info('adopted the PostgreSQL that an earlier server left running');
  }
  const database = openDatabase(embedded?.url ?? config.databaseUrl!, {
    // A reconcile step holds one connection for its lock and asks on another; requests have ten besides.
    max: 10 + 2 * config.concurrency,
    onError: (error) => log.warn({ err: error }, 'a database connection broke'),
  });
  try {
    await migrateOnceThere(config, database, log);
    return { database, embedded };
  } catch (error) {
    await database.close();
    // An adopted one may be at work for another server.
    if (!embedded?.adopted) await embedded?.stop();
    throw error;
  }
}

/** In a cluster server and database start together, in any order: so a database that is away is waited for. */
async function migrateOnceThere(config: Config, database: Database, log: Logger): Promise<void> {
  const deadline = Date.now() + config.databaseWait * 1000;
  for (let told = false; ; ) {
    try {
      await checkSecretKey(database.pool, config);
      for (const name of await migrate(database.pool)) log.info(`migrated: ${name}`);
      return;
    } catch (error) {
      if (isDatabaseFull(error))
        throw new StartError(
          `The disk of the database is full: ${(error as Error).message}`,
          'Free space on it, then start again; nothing was lost.',
          error,
        );
      if (!isUnavailable(error)) throw error;
      // Of a name with several addresses each was refused; then only the code says anything.
      const why = (error as Error).message || (error as NodeJS.ErrnoException).code;
      if (Date.now() > deadline)
        throw new StartError(
          `The database does not answer: ${why}`,
          'Check DATABASE_URL and that PostgreSQL runs and lets this machine in; then start again.',
          error,
        );
      if (!told) log.warn(`The database does not answer yet (${why}); trying for ${config.databaseWait} s.`);
      told = true;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
}

/** On a server without users: makes the owner, and leaves a one-time code for whoever started it. */
async function firstStart(
  config: Config,
  database: Database,
): Promise<{ code: string; username: string } | null> {
  const file = join(config.dataDir, 'first-start.json');
  const { created, user } = await ensureOwner(database, {
    // In a workspace it is the developer's name; there nobody is root.
    username: userInfo().username === 'root' ? 'owner' : userInfo().username,
    now: () => new Date(),
  });
  if (!created && !existsSync(file)) return null;
  const before = existsSync(file) ? (JSON.parse(await readFile(file, 'utf8')) as { username: string }) : null;
  const link = await makeOneTimeLink(database, user.id, () => new Date());
  const told = { url: config.accessUrl, oneTimeCode: link.code, username: before?.username ?? user.username };
  await writeFile(file, `${JSON.stringify(told)}\n`, { mode: 0o600 });
  return { code: link.code, username: told.username };
}

/**
 * `sign-in-link [USERNAME]`: the way back in for whoever runs the machine, when an owner has lost password,
 * token and browser. Works beside a running server and without one.
 */
async function signInLink(args: string[]): Promise<void> {
  const username = args[0]?.startsWith('-') ? undefined : args[0];
  const config = readConfig(username === undefined ? args : args.slice(1), process.env);
  const { database, embedded } = await connect(config, makeLog('error'));
  try {
    const user =
      username === undefined
        ? (await ensureOwner(database, { username: 'owner', now: () => new Date() })).user
        : await findUser(database.db, username);
    if (!user)
      throw new StartError(`There is no user ${username}.`, 'Leave the name out for the first owner.');
    const { path, expiresAt } = await makeOneTimeLink(database, user.id, () => new Date());
    process.stdout.write(`${config.accessUrl}${path}\n`);
    process.stderr.write(
      `Signs ${user.username} in to a browser, once, until ${expiresAt.toLocaleTimeString()}.\n`,
    );
  } finally {
    await database.close();
    if (embedded && !embedded.adopted) await embedded.stop();
  }
}

/**
 * `check-config`: whether a server would start with these settings, without starting one. In the chart it runs before an
 * installation or update changes anything; CDE_CHECK_REQUIRED names variables that must be there.
 */
function checkConfig(args: string[]): void {
  const { env } = process;
  const config = readConfig(args, env);
  const [unknown] = unknownSettings(env);
  if (unknown)
    throw new ConfigError(
      `${unknown} is not a setting of the server.`,
      'docs/configuration.md lists them; `--help` prints them.',
    );
  for (const name of (env.CDE_CHECK_REQUIRED ?? '').split(' ').filter(Boolean))
    if (!env[name])
      throw new ConfigError(
        `${name} is empty: its Secret, or the key in it, is not there.`,
        'Create the Secret in the namespace of the release, or correct its name and key in the values.',
      );
  process.stdout.write(`The settings can be used; the server is reached at ${config.accessUrl}.\n`);
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
  // The embedded satellite is one of many tasks here: new objects have their usual space.
  collectBuffersEarly({ smallNewSpace: false });
  useProxyForFetch();
  const log = makeLog(config.logLevel);
  await mkdir(config.dataDir, { recursive: true, mode: 0o711 }).catch((error: NodeJS.ErrnoException) => {
    throw new StartError(
      `The data directory ${config.dataDir} cannot be made: ${systemErrorReason(error) ?? error.message}.`,
      'Choose another: CDE_DATA_DIR.',
      error,
    );
  });
  const { database, embedded } = await connect(config, log);
  embedded?.supervise((event, detail) => {
    if (event === 'back') log.warn('the embedded PostgreSQL runs again');
    else log.error(`the embedded PostgreSQL ${event}: ${detail}; it is started again`);
  });
  const server = await startControlPlane({ config, database, log }).catch(
    async (error: NodeJS.ErrnoException) => {
      await database.close();
      if (!embedded?.adopted) await embedded?.stop();
      if (error.code === 'EADDRINUSE')
        throw new StartError(
          `Port ${config.listen.port} on ${config.listen.host} is in use.`,
          'Another cde may run already. Stop it, or choose another port: CDE_LISTEN=127.0.0.1:7081',
          error,
        );
      if (error.code === 'EACCES' || error.code === 'EADDRNOTAVAIL')
        throw new StartError(
          `Cannot listen on ${config.listen.host}:${config.listen.port}: ${error.message}`,
          'Choose another address: CDE_LISTEN',
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
    // Should anything hang, the process still ends; whatever was under way is taken up at the next start.
    setTimeout(() => process.exit(1), 20_000).unref();
    await server.stop();
    await database.close();
    await embedded?.stop();
    process.exit(0);
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => void stop(signal));
  // Started by `cde server start`: without that parent nobody would stop this process.
  if (process.send) process.on('disconnect', () => void stop('its parent is gone'));

  const first = await firstStart(config, database);
  log.info(
    {
      url: config.accessUrl,
      version,
      dataDir: config.dataDir,
      database: embedded ? 'embedded' : 'DATABASE_URL',
    },
    'cde server is ready',
  );
  if (process.send) {
    process.send({ type: 'ready', url: config.accessUrl, dataDir: config.dataDir, firstStart: first });
    // The parent says so when the first start is complete: from then on the code is of no use.
    process.on('message', (message: { type?: string }) => {
      if (message?.type === 'first-start-done')
        rmSync(join(config.dataDir, 'first-start.json'), { force: true });
    });
  } else if (first && process.stdout.isTTY) {
    process.stdout.write(
      `Sign in once as ${first.username}: ${config.accessUrl}/sign-in#code=${first.code}\n`,
    );
  } else if (first) {
    // Logs are kept, and read by many: whoever has this link is the owner.
    log.info('nobody has signed in yet: run `cde server sign-in-link` here for the first owner');
  }
}

main().catch((error) => {
  if ([ConfigError, MigrationError, SecretKeyError, StartError].some((kind) => error instanceof kind)) {
    process.stderr.write(`cde server: ${error.message}\n${error.hint}\n`);
    process.exit(error instanceof ConfigError ? 2 : 1);
  }
  process.stderr.write(`cde server: ${(error as Error).stack ?? error}\n`);
  process.exit(1);
});
