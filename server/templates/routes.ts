import type { TemplateFile } from '@cde/api/template-file.ts';
import type { ParameterValues } from '@cde/api/template-parameters.ts';
import * as api from '@cde/api/templates.ts';
import type { FastifyInstance } from 'fastify';
import type { Database } from '../database/pool.ts';
import { serve } from '../http/serve.ts';
import { parseTemplate } from './parse.ts';
import { activateVersion, deleteTemplate, publishTemplate } from './publish.ts';
import { getTemplate, getVersion, listTemplates, listVersions } from './store.ts';

/** Why a cluster rejects an object of a template. */
export interface DryRunError {
  message: string;
  detail?: string | undefined;
  hint?: string | undefined;
}

/** Applies a template to a cluster without changing anything there, and returns what the cluster rejects. */
export type DryRun = (
  template: TemplateFile,
  options: { cluster: string; parameters?: ParameterValues | undefined },
) => Promise<DryRunError[]>;

/** Templates have no owner, so the endpoint's permission is the only check. */
export function templateRoutes(
  app: FastifyInstance,
  deps: { database: Database; dryRun: DryRun; now: () => Date },
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
      template && cluster !== undefined ? await deps.dryRun(template, { cluster, parameters }) : [];
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
