import type { FastifyInstance } from 'fastify';
import type { Database } from '../database/pool.ts';

/** The template engineer fills this in. */
export function templateRoutes(_app: FastifyInstance, _deps: { database: Database; now: () => Date }): void {}
