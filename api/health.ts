import { z } from 'zod';
import { endpoint } from './endpoint.ts';
import { Finding } from './findings.ts';
import { Moment } from './names.ts';

/** Something that is wrong with the installation. `message` is what it means, `hint` and `actions` what to do. */
export const HealthFinding = Finding.extend({
  target: z
    .string()
    .nullable()
    .describe('What it is about: a satellite, a cluster, a node; null: the installation'),
  since: Moment.describe('When it was noticed first'),
});
export type HealthFinding = z.infer<typeof HealthFinding>;

export const Health = z.object({
  at: Moment,
  checks: z.array(
    z.object({
      name: z.string(),
      state: z.enum(['passed', 'warned', 'failed', 'skipped']),
      because: z.array(z.string()).describe('If skipped: the checks that failed'),
    }),
  ),
  findings: z.array(HealthFinding).describe('Without those that another one explains; errors first'),
});
export type Health = z.infer<typeof Health>;

export const getHealth = endpoint({
  method: 'GET',
  path: '/api/v1/health',
  tag: 'health',
  summary: 'Find out what is wrong with the installation',
  permission: 'health:read',
  reply: Health,
  maxConcurrent: 4,
});
