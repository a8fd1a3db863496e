import type { GceSection } from '@cde/api/template-cloud.ts';
import type { WorkspaceSpec } from '../provider.ts';

export const gceSectionOf = ({ template }: WorkspaceSpec): GceSection | undefined => template.gce;
