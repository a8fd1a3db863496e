import type { KubernetesSection } from '@cde/api/template-file.ts';
import type { WorkspaceSpec } from '../../provider.ts';

/** The settings of this provider. Publishing a template of this provider requires them. */
export function sectionOf({ template }: Pick<WorkspaceSpec, 'template'>): KubernetesSection {
  if (!template.kubernetes) throw new Error('The template has no section "kubernetes".');
  return template.kubernetes;
}
