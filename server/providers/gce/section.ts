import type { GceSection } from '@cde/api/template-file.ts';
import type { WorkspaceSpec } from '../provider.ts';

export const gceSectionOf = ({ template }: WorkspaceSpec): GceSection | undefined => template.gce;
