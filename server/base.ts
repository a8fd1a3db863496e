import type { AddressInfo } from 'node:net';
import { setTimeout } from 'node:timers/promises';
import type { FastifyInstance } from 'fastify';
import fp from 'fastify-plugin';
import type { Config } from './config.ts';
import type { Database } from './database/pool.ts';

declare module 'fastify' {
  interface FastifyInstance {
    readonly config: Readonly<Config>;
    readonly database: Database;
    /** The clock, injected by tests. */
    readonly now: () => Date;
    /** Waits. Tests advance their clock instead. */
    readonly sleep: (ms: number) => Promise<void>;
    /** The URL that the server listens at, such as `http://127.0.0.1:7080`; the access URL as long as it does not listen. */
    listenUrl(): string;
    /** Registers background work, which starts once the server listens. Started in the order of registration. */
    onStart(start: () => void | Promise<void>): void;
    /** Starts the background work. Called once by `startControlPlane`, and not by tests that only inject requests. */
    startBackgroundWork(): Promise<void>;
    /** Registers cleanup that runs with the minutely sweep, in the order of registration. */
    onSweep(clean: () => Promise<void>): void;
    sweep(): Promise<void>;
  }
}

export interface BaseOptions {
  config: Readonly<Config>;
  database: Database;
  now?: (() => Date) | undefined;
  sleep?: ((ms: number) => Promise<void>) | undefined;
}

function listenUrl(app: FastifyInstance): string {
  const bound = app.server.address() as AddressInfo | null;
  if (bound === null) return app.config.accessUrl;
  const { address, port, family } = bound;
  const isWildcard = address === '0.0.0.0' || address === '::';
  const host = isWildcard ? '127.0.0.1' : family === 'IPv6' ? `[${address}]` : address;
  return `http://${host}:${port}`;
}

/** What every other plugin builds on: settings, database, clock, and the start of background work. */
export const basePlugin = fp<BaseOptions>(
  async (app, options) => {
    const starts: (() => void | Promise<void>)[] = [];
    const cleanups: (() => Promise<void>)[] = [];
    app.decorate('config', options.config);
    app.decorate('database', options.database);
    app.decorate('now', options.now ?? (() => new Date()));
    app.decorate('sleep', options.sleep ?? setTimeout);
    app.decorate('listenUrl', () => listenUrl(app));
    app.decorate('onStart', (start) => void starts.push(start));
    app.decorate('startBackgroundWork', async () => {
      for (const start of starts) await start();
    });
    app.decorate('onSweep', (clean) => void cleanups.push(clean));
    app.decorate('sweep', async () => {
      for (const clean of cleanups) await clean();
    });
  },
  { name: 'base' },
);
