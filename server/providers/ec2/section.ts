import type { Ec2Section } from '@cde/api/template-cloud.ts';
import type { WorkspaceSpec } from '../provider.ts';

export const ec2SectionOf = ({ template }: WorkspaceSpec): Ec2Section | undefined => template.ec2;
