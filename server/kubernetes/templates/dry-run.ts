import { Problem } from '@cde/api/problem.ts';
import { v7 } from 'uuid';
import { KubeError } from '../../providers/kubernetes/api/client.ts';
import type { Connections } from '../../providers/kubernetes/api/connections.ts';
import { dryRunTemplate } from '../../providers/kubernetes/steps/dry-run.ts';
import { quotaIssues } from '../../templates/kubernetes/quota.ts';
import { checkParameters } from '../../templates/language/parameters.ts';
import { formatPath } from '../../templates/language/source.ts';
import { renderTemplate } from '../../templates/render.ts';
import type { DryRun } from '../../templates/routes.ts';

/**
 * Applies a template to a cluster as a server-side dry run, as a workspace with these parameters would apply it. An empty
 * cluster name selects the cluster that the template chooses.
 * @throws parameters-invalid, cluster-not-found, cluster-away
 */
export const makeDryRun =
  (connections: Connections): DryRun =>
  async (template, { cluster, parameters = {} }) => {
    const checked = checkParameters(template.parameters, parameters);
    if ('issues' in checked)
      throw new Problem('parameters-invalid', 'The template cannot be checked without valid parameters.', {
        detail: checked.issues.map((issue) => `${issue.path}: ${issue.message}`).join('; '),
        hint: 'Give each of them a value.',
        issues: checked.issues,
      });
    const workspace = { id: v7(), name: 'dry-run', owner: 'nobody' };
    const rendered = renderTemplate(template, checked.values, {
      workspace,
      owner: { name: 'Nobody', email: '' },
    });
    if ('faults' in rendered)
      return rendered.faults.map(({ path, message, hint }) => ({ message: `${path}: ${message}`, hint }));
    const section = rendered.ok.kubernetes;
    if (!section) return [];
    const tight = quotaIssues(rendered.ok);
    if (tight.length > 0)
      return tight.map(({ path, message, hint }) => ({ message: `${formatPath(path)}: ${message}`, hint }));
    const connection = cluster === '' ? connections.choose(section.cluster) : connections.get(cluster);
    if (!connection)
      throw new Problem(
        'cluster-not-found',
        cluster === '' ? 'No cluster matches the template.' : `There is no cluster ${cluster}.`,
        { actions: [{ kind: 'list-clusters' }] },
      );
    const { name } = connection.record;
    try {
      return await dryRunTemplate(connection, {
        workspaceId: workspace.id,
        owner: workspace.owner,
        name: workspace.name,
        template: rendered.ok,
      });
    } catch (error) {
      if (!(error instanceof KubeError)) throw error;
      throw new Problem('cluster-away', `The template could not be checked on the cluster ${name}.`, {
        detail: error.message,
        actions: [{ kind: 'show-cluster', cluster: name }],
      });
    }
  };
