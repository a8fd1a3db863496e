import * as api from '@cde/api/templates.ts';
import type { FastifyInstance } from 'fastify';
import type { Database } from '../database/pool.ts';
import { serve } from '../http/serve.ts';
import type { Connections } from '../providers/kubernetes/connections.ts';
import { tryTemplate } from './attempt.ts';
import { parseTemplate } from './parse.ts';
import { activateVersion, deleteTemplate, publishTemplate } from './publish.ts';
import { getTemplate, getVersion, listTemplates, listVersions } from './store.ts';

/** Templates belong to nobody, so the endpoint's permission is all that is asked. */
export function templateRoutes(
  app: FastifyInstance,
  deps: { database: Database; connections: Connections; now: () => Date },
): void {
  const { db } = deps.database;
  serve(app, api.listTemplates, ({ query }) => listTemplates(db, query));
  serve(app, api.getTemplate, ({ params }) => getTemplate(db, params.template));
  serve(app, api.listTemplateVersions, ({ params, query }) => listVersions(db, params.template, query));
  serve(app, api.getTemplateVersionFiles, async ({ params }) => {
    const { files } = await getVersion(db, params.template, params.number);
    return { files };
  });
  serve(app, api.validateTemplate, async ({ body }) => {
    const { template, faults, warnings } = parseTemplate(body.files);
    const { cluster, parameters } = body;
    const refused =
      template && cluster !== undefined
        ? await tryTemplate(deps.connections, template, { cluster, parameters })
        : [];
    return {
      valid: template !== null && refused.length === 0,
      refused,
      faults,
      warnings,
      name: template?.name ?? null,
      parameters: template?.parameters ?? [],
    };
  });
  serve(app, api.publishTemplate, (input) => publishTemplate(deps, input, input.body));
  serve(app, api.activateTemplateVersion, (input) =>
    activateVersion(deps, input, input.params.template, input.params.number),
  );
  serve(app, api.deleteTemplate, (input) => deleteTemplate(deps, input, input.params.template));
}
