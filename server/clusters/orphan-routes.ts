import * as api from '@cde/api/clusters.ts';
import type { FastifyInstance } from 'fastify';
import { serve } from '../http/serve.ts';
import { cleanOrphans, findOrphans, type OrphanDeps } from './orphans.ts';

/** Orphans belong to nobody, so the endpoint's permission is all that is asked. */
export function orphanRoutes(app: FastifyInstance, deps: OrphanDeps): void {
  serve(app, api.listOrphans, () => findOrphans(deps));
  serve(app, api.cleanOrphans, ({ body, ...caller }) => cleanOrphans(deps, { dryRun: body.dryRun, caller }));
}
