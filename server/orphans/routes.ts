import * as api from '@cde/api/clusters.ts';
import type { FastifyInstance } from 'fastify';
import { serve } from '../http/serve.ts';
import type { OrphanSweep } from './sweep.ts';

/** Orphans have no owner, so the endpoint's permission is the only check. */
export function orphanRoutes(
  app: FastifyInstance,
  orphans: Pick<OrphanSweep, 'find' | 'clean' | 'adopt'>,
): void {
  serve(app, api.listOrphans, ({ query }) => orphans.find(query));
  serve(app, api.adoptOrphan, async ({ body, ...caller }) => ({ items: await orphans.adopt(body, caller) }));
  serve(app, api.cleanOrphans, ({ body, ...caller }) => orphans.clean({ ...body, caller }));
}
