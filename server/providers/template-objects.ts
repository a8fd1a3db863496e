import type { Manifest } from '@cde/api/template-file.ts';
import { renderNamespace } from './kubernetes/objects/namespace.ts';
import type { RenderedTemplate } from './provider.ts';

/** The objects that a workspace of a rendered template gets on a cluster, for checks before it is published. */
export function templateObjects(template: RenderedTemplate): Manifest[] {
  const spec = { workspaceId: '', owner: 'someone', name: 'example', template };
  const launch = { buildId: '', token: '', serverUrl: '' };
  const options = { namespace: 'example', installation: '', agentImage: '' };
  return renderNamespace(spec, launch, options);
}
